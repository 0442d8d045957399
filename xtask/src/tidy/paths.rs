//! Every path that a file names (`crate::a::b`, and each leaf of `use crate::{a, b::c}`), found in
//! the tokens: also those inside macros, which a syntax tree does not show.

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// A path as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NamedPath {
    /// Its parts; `*` for a glob.
    pub(super) segments: Vec<String>,
    /// Where it starts.
    pub(super) line: usize,
    /// The modules written out in the file (`mod tests { … }`) that it is in, outermost first.
    pub(super) modules: Vec<String>,
}

/// All paths, in the order of the text.
pub(super) fn all(tokens: TokenStream) -> Vec<NamedPath> {
    let mut search = Search { modules: Vec::new(), found: Vec::new() };
    search.walk(tokens);
    search.found
}

/// Words that a path may stand behind, as in `use ::std::fs`, and that begin none.
const KEYWORDS: [&str; 20] = [
    "as", "break", "const", "dyn", "else", "for", "if", "impl", "in", "let", "match", "move",
    "mut", "pub", "ref", "return", "static", "unsafe", "use", "while",
];

struct Search {
    modules: Vec<String>,
    found: Vec<NamedPath>,
}

impl Search {
    fn walk(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            match token {
                TokenTree::Group(group) => self.walk(group.stream()),
                TokenTree::Ident(word) if word == "mod" => {
                    if let [TokenTree::Ident(name), TokenTree::Group(body), ..] = rest(&tokens, at)
                    {
                        self.modules.push(name.to_string());
                        self.walk(body.stream());
                        self.modules.pop();
                        at += 2;
                    }
                }
                TokenTree::Ident(word) if KEYWORDS.iter().any(|keyword| word == keyword) => {}
                TokenTree::Ident(word) => {
                    let line = word.span().start().line;
                    at = self.path(&tokens, at, vec![word.to_string()], line);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }

    /// Goes on after a path's first part; `at` is the token behind it. Returns the first token that
    /// is not part of it.
    fn path(
        &mut self,
        tokens: &[TokenTree],
        mut at: usize,
        mut segments: Vec<String>,
        line: usize,
    ) -> usize {
        while is_double_colon(rest(tokens, at)) {
            match tokens.get(at + 2) {
                Some(TokenTree::Ident(word)) => segments.push(word.to_string()),
                Some(TokenTree::Punct(star)) if star.as_char() == '*' => segments.push("*".into()),
                Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                    self.leaves(group, &segments);
                    return at + 3;
                }
                // The arguments of a generic: paths of their own.
                _ => break,
            }
            at += 3;
        }
        self.found.push(NamedPath { segments, line, modules: self.modules.clone() });
        at
    }

    /// The comma-separated parts of `{…}` in an import, each with the path before the brace.
    fn leaves(&mut self, group: &Group, before: &[String]) {
        let tokens: Vec<TokenTree> = group.stream().into_iter().collect();
        for leaf in tokens.split(|token| is_punct(token, ',')) {
            let (word, line) = match leaf.first() {
                Some(TokenTree::Ident(word)) => (word.to_string(), word.span().start().line),
                Some(TokenTree::Punct(star)) => (star.to_string(), star.span().start().line),
                _ => continue,
            };
            let mut segments = before.to_vec();
            if word != "self" {
                segments.push(word);
            }
            self.path(leaf, 1, segments, line);
        }
    }
}

fn rest(tokens: &[TokenTree], at: usize) -> &[TokenTree] {
    tokens.get(at..).unwrap_or_default()
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

fn is_double_colon(tokens: &[TokenTree]) -> bool {
    let [TokenTree::Punct(first), second, ..] = tokens else {
        return false;
    };
    first.as_char() == ':' && first.spacing() == Spacing::Joint && is_punct(second, ':')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        let found = all(text.parse().expect("the sample is Rust"));
        found.iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn imports_are_taken_apart() {
        assert_eq!(
            paths("use crate::{model::{self, Pid as P, name::*}, sys};"),
            ["crate::model", "crate::model::Pid", "crate::model::name::*", "crate::sys"]
        );
        assert_eq!(paths("use ::std::fs;"), ["std::fs"]);
    }

    #[test]
    fn paths_are_seen_in_macros_generics_and_attributes() {
        assert_eq!(paths("m!(x, crate::a::B);"), ["m", "x", "crate::a::B"]);
        assert_eq!(paths("a::<crate::b::C>()"), ["a", "crate::b::C"]);
        assert_eq!(paths("#[x(super::y)]"), ["x", "super::y"]);
    }

    #[test]
    fn text_that_is_no_code_is_not_seen() {
        assert_eq!(paths("/* crate::a */ f(\"crate::b\"); // crate::c"), ["f"]);
    }

    #[test]
    fn the_modules_around_a_path_are_known() {
        let found = all("mod a { mod tests { b!(c) } } mod d; e".parse().expect("Rust"));
        let c = found.iter().find(|path| path.segments == ["c"]).expect("c");
        let e = found.iter().find(|path| path.segments == ["e"]).expect("e");
        assert_eq!(c.modules, ["a", "tests"]);
        assert!(e.modules.is_empty());
    }
}
