//! Cost against the number of sockets, as SVG: for whoever wants to see a line rather than a table.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

use super::row::Row;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
/// Room for the axes, in the same units: left, right, top, bottom.
const MARGIN: [f64; 4] = [70.0, 250.0, 40.0, 50.0];
/// Told apart by people who see few colours, too.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#555555", "#000000"];

/// A line: what it is of, and its points, in order of the number of sockets.
struct Line {
    name: String,
    is_peer: bool,
    /// Number, median, least, most.
    points: Vec<[f64; 4]>,
}

/// Draws a picture for each bench and unit of which something was measured at several numbers of sockets, as
/// `FOLDER/BENCH-UNIT.svg`; their names.
pub(super) fn draw(rows: &[Row], machine: &str, folder: &Path) -> Result<Vec<String>> {
    let mut pictures: BTreeMap<(&str, &str), Vec<&Row>> = BTreeMap::new();
    for row in rows {
        pictures.entry((row.bench, row.unit)).or_default().push(row);
    }
    let mut names = Vec::new();
    for ((bench, unit), rows) in pictures {
        let lines = lines(&rows);
        if lines.is_empty() {
            continue;
        }
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let file: String = unit.chars().filter(char::is_ascii_alphanumeric).collect();
        let path = folder.join(format!("{bench}-{file}.svg"));
        fs::write(&path, picture(bench, unit, machine, &lines))
            .with_context(|| format!("write {}", path.display()))?;
        names.push(path.display().to_string());
    }
    Ok(names)
}

/// Those with at least two points: a workload's own, and each peer's.
fn lines(rows: &[&Row]) -> Vec<Line> {
    let mut lines: BTreeMap<(bool, String), BTreeMap<u64, [f64; 4]>> = BTreeMap::new();
    for row in rows {
        let n = precise(row.n);
        let values =
            |samples: &super::samples::Samples| [n, samples.median(), samples.min(), samples.max()];
        if let Ok(samples) = &row.ucr {
            let line = lines.entry((false, format!("ucr: {}", row.workload))).or_default();
            line.insert(row.n, values(samples));
        }
        if let Some(peer) = &row.peer
            && let Ok(samples) = &peer.value
        {
            let name = format!("{}: {}", peer.name, row.workload);
            lines.entry((true, name)).or_default().insert(row.n, values(samples));
        }
    }
    lines
        .into_iter()
        .filter(|(_, points)| points.len() > 1)
        .map(|((is_peer, name), points)| Line {
            name,
            is_peer,
            points: points.into_values().collect(),
        })
        .collect()
}

/// A count of sockets is far below what a float can hold.
fn precise(n: u64) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Both axes are logarithmic: a straight line that rises as the grid does is a cost in proportion.
fn picture(bench: &str, unit: &str, machine: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|line| &line.points);
    let span = |of: fn(&[f64; 4]) -> [f64; 2]| {
        let all = || points().flat_map(of).filter(|value| *value > 0.0);
        let (least, most) = (all().fold(f64::MAX, f64::min), all().fold(0.0, f64::max));
        (least.log10().floor(), most.log10().ceil())
    };
    let (x_axis, y_axis) = (span(|p| [p[0], p[0]]), span(|p| [p[2], p[3]]));
    let [left, right, top, bottom] = MARGIN;
    let place = |value: f64, (from, to): (f64, f64), length: f64| {
        let at = value.max(f64::MIN_POSITIVE).log10().clamp(from, to);
        (at - from) / (to - from).max(1.0) * length
    };
    let x = |n: f64| left + place(n, x_axis, WIDTH - left - right);
    let y = |value: f64| HEIGHT - bottom - place(value, y_axis, HEIGHT - top - bottom);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"16\" font-size=\"14\">ucr bench {}: {} against the number of sockets</text>\n\
         <text x=\"{left}\" y=\"30\" fill=\"#555\">{}</text>\n",
        text(bench),
        text(unit),
        text(machine)
    );
    // Writing to a string cannot fail.
    let mut add = |element: String| {
        let _: std::fmt::Result = writeln!(svg, "{element}");
    };
    for power in powers(x_axis) {
        let (at, low) = (x(power), HEIGHT - bottom);
        add(format!("<path d=\"M{at:.1} {top}V{low}\" stroke=\"#ddd\"/>"));
        let under = low + 16.0;
        add(format!("<text x=\"{at:.1}\" y=\"{under}\" text-anchor=\"middle\">{power}</text>"));
    }
    for power in powers(y_axis) {
        let (at, end, before) = (y(power), WIDTH - right, left - 6.0);
        add(format!("<path d=\"M{left} {at:.1}H{end}\" stroke=\"#ddd\"/>"));
        add(format!(
            "<text x=\"{before}\" y=\"{:.1}\" text-anchor=\"end\">{power}</text>",
            at + 4.0
        ));
    }
    for (number, line) in lines.iter().enumerate() {
        let colour = COLOURS.get(number % COLOURS.len()).copied().unwrap_or("#000000");
        let dashes = if line.is_peer { " stroke-dasharray=\"5 3\"" } else { "" };
        let way: Vec<String> =
            line.points.iter().map(|p| format!("{:.1},{:.1}", x(p[0]), y(p[1]))).collect();
        let way = way.join(" ");
        add(format!("<polyline points=\"{way}\" fill=\"none\" stroke=\"{colour}\"{dashes}/>"));
        for [n, median, least, most] in &line.points {
            let (at, from, to) = (x(*n), y(*least), y(*most));
            add(format!("<path d=\"M{at:.1} {from:.1}V{to:.1}\" stroke=\"{colour}\"/>"));
            add(format!(
                "<circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"/>",
                y(*median)
            ));
        }
        let (begin, row) = (WIDTH - right + 12.0, top + 8.0 + 15.0 * precise(number as u64));
        let end = begin + 18.0;
        add(format!("<path d=\"M{begin} {row}H{end}\" stroke=\"{colour}\"{dashes}/>"));
        let name = text(&line.name);
        add(format!("<text x=\"{}\" y=\"{}\">{name}</text>", end + 5.0, row + 4.0));
    }
    svg.push_str("</svg>\n");
    svg
}

/// The powers of ten on an axis.
fn powers((from, to): (f64, f64)) -> impl Iterator<Item = f64> {
    let mut power = from;
    std::iter::from_fn(move || {
        let value = (power <= to).then(|| 10_f64.powf(power));
        power += 1.0;
        value
    })
}

/// As it may stand in SVG.
fn text(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::{
        row::{Better, Peer},
        samples::Samples,
    };
    use super::*;

    fn row(n: u64, own: f64, peer: Option<f64>) -> Row {
        let samples = |value: f64| Samples::new(vec![value]).ok_or("gone".to_owned());
        Row {
            bench: "dump",
            workload: "pairs & <more>".to_owned(),
            n,
            unit: "ms",
            better: Better::Less,
            ucr: samples(own),
            peer: peer.map(|value| Peer { name: "ss".to_owned(), value: samples(value) }),
            target: None,
        }
    }

    #[test]
    fn a_line_needs_two_points_and_a_picture_a_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let one = [row(2, 1.0, None)];
        assert_eq!(draw(&one, "m", folder.path()).expect("drawn"), Vec::<String>::new());
        let two = [row(2, 5.0, Some(30.0)), row(2000, 12.0, None), row(16_000, 110.0, Some(140.0))];
        let drawn = draw(&two, "2 x <this>", folder.path()).expect("drawn");
        let path = folder.path().join("dump-ms.svg");
        assert_eq!(drawn, [path.display().to_string()]);
        let svg = fs::read_to_string(path).expect("the picture");
        assert_eq!(svg.matches("<polyline").count(), 2);
        // Three of ours, two of the peer's.
        assert_eq!(svg.matches("<circle").count(), 5);
        assert!(svg.contains("ucr: pairs &amp; &lt;more&gt;") && svg.contains("2 x &lt;this&gt;"));
    }

    #[test]
    fn what_costs_more_stands_higher() {
        let rows = [row(10, 1.0, None), row(1000, 100.0, None)];
        let all: Vec<&Row> = rows.iter().collect();
        let svg = picture("dump", "ms", "m", &lines(&all));
        let way = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next());
        let numbers: Vec<f64> = way
            .expect("a line")
            .split([' ', ','])
            .map(|number| number.parse().expect("a number"))
            .collect();
        let [x1, y1, x2, y2] = numbers[..] else { panic!("{numbers:?}") };
        assert!(x1 < x2 && y1 > y2, "{numbers:?}");
    }
}
