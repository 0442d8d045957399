//! Boxes that stand where one looks for them, and on nothing else.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const SIZE: Size = Size { width: 100, height: 40, margin: 20 };

fn columns(layout: &Layout) -> Vec<i64> {
    let all: BTreeSet<i64> = layout.places.iter().map(|place| place.x).collect();
    let column = |place: &Place| all.iter().position(|x| *x == place.x).map_or(-1, whole);
    layout.places.iter().map(column).collect()
}

#[test]
fn servers_stand_on_the_right_of_their_clients() {
    let layout = arrange(&[SIZE; 4], &[(0, 1), (1, 2), (3, 2)]);
    assert_eq!(columns(&layout), [0, 1, 2, 1]);
}

#[test]
fn in_a_circle_somebody_is_the_last() {
    let layout = arrange(&[SIZE; 3], &[(0, 1), (1, 2), (2, 0)]);
    assert_eq!(columns(&layout), [2, 0, 1]);
    // The one that has most clients.
    let layout = arrange(&[SIZE; 4], &[(0, 1), (1, 0), (2, 1), (3, 1)]);
    assert_eq!(columns(&layout), [0, 1, 0, 0]);
}

#[test]
fn a_server_stands_in_the_middle_of_its_clients() {
    let layout = arrange(&[SIZE; 4], &[(1, 0), (2, 0), (3, 0)]);
    assert_eq!(layout.places[0].y, layout.places[2].y);
}

#[test]
fn edges_do_not_cross_without_need() {
    let layout = arrange(&[SIZE; 4], &[(0, 3), (1, 2)]);
    assert_eq!(layout.places[0].y, layout.places[3].y);
    let layout = arrange(&[SIZE; 5], &[(0, 3), (1, 2), (0, 4), (1, 4)]);
    let y = |node: usize| layout.places[node].y;
    assert_eq!(y(0) < y(1), y(3) < y(2));
}

#[test]
fn many_clients_are_put_in_several_columns() {
    let edges: Vec<_> = (1..300).map(|client| (client, 0)).collect();
    let layout = arrange(&[SIZE; 300], &edges);
    assert!(layout.width < 4 * layout.height && layout.height < 4 * layout.width, "{layout:?}");
}

#[test]
fn an_edge_goes_round_the_boxes_between_its_ends() {
    let layout = arrange(&[SIZE; 3], &[(0, 1), (1, 2), (0, 2), (2, 0)]);
    let bends: Vec<usize> = layout.bends.iter().map(Vec::len).collect();
    assert_eq!(bends, [0, 0, 1, 1]);
    let Place { x, y } = layout.places[1];
    for bend in layout.bends.iter().flatten() {
        assert_eq!((bend.left, bend.right), (x, x + 120));
        assert!(bend.y < y || bend.y > y + SIZE.height, "{bend:?}");
    }
    let crossed = arrange(&[SIZE; 4], &[(0, 1), (1, 2), (2, 3), (3, 0)]);
    let lefts: Vec<i64> = crossed.bends[0].iter().map(|bend| bend.left).collect();
    assert!(lefts.is_sorted_by(|one, other| one > other) && lefts.len() == 2, "{lefts:?}");
}

proptest! {
    #[test]
    fn no_box_stands_on_another_one(
        heights in prop::collection::vec(20_i64..200, 1..40),
        edges in prop::collection::vec((0_usize..42, 0_usize..42), 0..80),
    ) {
        let sizes: Vec<Size> =
            heights.iter().map(|&height| Size { height, ..SIZE }).collect();
        let layout = arrange(&sizes, &edges);
        for (index, (one, size)) in layout.places.iter().zip(&sizes).enumerate() {
            prop_assert!(one.x >= 0 && one.x + size.width <= layout.width);
            prop_assert!(one.y >= 0 && one.y + size.height <= layout.height);
            for (other, its) in layout.places.iter().zip(&sizes).skip(index + 1) {
                let beside = one.x + size.width <= other.x || other.x + its.width <= one.x;
                let below = one.y + size.height <= other.y || other.y + its.height <= one.y;
                prop_assert!(beside || below, "{one:?} {other:?}");
            }
            for bend in layout.bends.iter().flatten() {
                let beside = bend.right <= one.x || bend.left >= one.x + size.width;
                let below = bend.y <= one.y || bend.y >= one.y + size.height;
                prop_assert!(beside || below, "{one:?} {bend:?}");
            }
        }
    }
}
