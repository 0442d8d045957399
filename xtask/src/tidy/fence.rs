//! Unsafe code stays where it belongs and says why it is sound; no lint is silenced.

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use super::source::{Report, Source};

/// Where unsafe code may be.
const FENCES: [&str; 2] = ["ucr-ebpf", "ucr-userspace/src/sys"];

/// How far up an explanation is looked for, in lines of code that begin the same statement.
const STATEMENT_LINES: usize = 12;

/// Looks at every `unsafe` and every attribute.
pub(super) fn check(source: &Source<'_>, report: &mut Report<'_>) {
    let is_inside = FENCES.iter().any(|fence| source.path.starts_with(fence));
    let mut check = Check { is_inside, lines: source.text.lines().collect(), report };
    check.walk(source.tokens.clone());
}

struct Check<'a, 'r> {
    is_inside: bool,
    lines: Vec<&'a str>,
    report: &'r mut Report<'r>,
}

impl Check<'_, '_> {
    fn walk(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Group(group) => {
                    if is_attribute(tokens.get(..at).unwrap_or_default(), token) {
                        self.attribute(group.stream());
                    } else {
                        self.walk(group.stream());
                    }
                }
                TokenTree::Ident(word) if word == "unsafe" => {
                    let after = tokens.get(at + 1..).unwrap_or_default();
                    self.unsafe_code(word.span().start().line, after);
                }
                _ => {}
            }
        }
    }

    fn attribute(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        for (at, token) in tokens.iter().enumerate() {
            let line = token.span().start().line;
            match (token, tokens.get(at + 1)) {
                (TokenTree::Ident(word), Some(TokenTree::Group(_))) if word == "allow" => {
                    let message = "`#[expect(…, reason = …)]` instead of `#[allow(…)]`";
                    (self.report)(line, "allow", message.to_owned());
                }
                (TokenTree::Ident(word), _) if word == "unsafe" => self.fence(line),
                (TokenTree::Group(group), _) => self.attribute(group.stream()),
                _ => {}
            }
        }
    }

    fn unsafe_code(&mut self, line: usize, after: &[TokenTree]) {
        if !self.is_inside {
            return self.fence(line);
        }
        let (what, is_explained) = match kind(after) {
            Kind::Code => ("a SAFETY comment", self.is_explained(line, &["SAFETY:"])),
            Kind::Contract => {
                ("a `# Safety` section", self.is_explained(line, &["SAFETY:", "# Safety"]))
            }
            Kind::Type => return,
        };
        if !is_explained {
            (self.report)(line, "safety", format!("unsafe code without {what} before it"));
        }
    }

    fn fence(&mut self, line: usize) {
        if !self.is_inside {
            let message = "unsafe code belongs in ucr-ebpf/ or ucr-userspace/src/sys/";
            (self.report)(line, "fence", message.to_owned());
        }
    }

    /// Whether one of the marks is in a comment on that line, or in the comments right above the
    /// statement or item that it is part of.
    fn is_explained(&self, line: usize, marks: &[&str]) -> bool {
        let is_marked = |text: &str| {
            let comment = text.find("//").and_then(|start| text.get(start..));
            comment.is_some_and(|comment| marks.iter().any(|mark| comment.contains(mark)))
        };
        let above = self.lines.get(..line).unwrap_or_default();
        let Some((own, above)) = above.split_last() else {
            return false;
        };
        if is_marked(own) {
            return true;
        }
        let mut code_lines = 0;
        for text in above.iter().rev().map(|text| text.trim()) {
            if text.starts_with("//") {
                if is_marked(text) {
                    return true;
                }
                continue;
            }
            let is_attribute = text.starts_with('#') || text.ends_with(']');
            let ends_before = text.is_empty() || text.ends_with([';', '{', '}', ',']);
            code_lines += 1;
            if !is_attribute && (ends_before || code_lines > STATEMENT_LINES) {
                return false;
            }
        }
        false
    }
}

enum Kind {
    /// Claims that it is sound: a block, an implementation, a list of foreign functions.
    Code,
    /// Asks something of its caller: a function, a trait.
    Contract,
    /// The type of a function pointer.
    Type,
}

/// What the tokens after `unsafe` make of it.
fn kind(after: &[TokenTree]) -> Kind {
    let mut after = after.iter().filter(|token| !matches!(token, TokenTree::Literal(_)));
    let mut next = after.next();
    let is_extern = is_word(next, "extern");
    if is_extern {
        next = after.next();
    }
    if is_word(next, "trait") {
        return Kind::Contract;
    }
    if is_word(next, "fn") {
        return match after.next() {
            Some(TokenTree::Ident(_)) => Kind::Contract,
            _ => Kind::Type,
        };
    }
    Kind::Code
}

fn is_word(token: Option<&TokenTree>, word: &str) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if ident == word)
}

/// `#[…]` or `#![…]`.
fn is_attribute(before: &[TokenTree], token: &TokenTree) -> bool {
    let is_punct = |token: &TokenTree, wanted| matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted);
    let is_bracket =
        matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Bracket);
    is_bracket
        && match before {
            [.., hash, bang] if is_punct(bang, '!') => is_punct(hash, '#'),
            [.., hash] => is_punct(hash, '#'),
            [] => false,
        }
}

#[cfg(test)]
mod tests {
    use super::super::tests::broken;

    fn inside(code: &str) -> Vec<(usize, &'static str)> {
        broken("ucr-userspace/src/sys/mod.rs", &format!("//! Docs.\n{code}\n"))
    }

    #[test]
    fn unsafe_code_is_found_outside_the_fence() {
        for code in [
            "// SAFETY: none\nfn f() { unsafe { g() } }",
            "// SAFETY: none\nunsafe impl Send for S {}",
            "/// # Safety\n/// x\npub unsafe fn f() {}",
            "\n#[unsafe(no_mangle)]\nfn f() {}",
            "\nm! { unsafe { x } } // SAFETY: in a macro",
        ] {
            let found = broken("ucr-userspace/src/model/mod.rs", &format!("//! Docs.\n{code}\n"));
            assert_eq!(found.len(), 1, "{code}: {found:?}");
            assert!(found.iter().all(|(_, rule)| *rule == "fence"), "{code}: {found:?}");
        }
        let ebpf = "//! Docs.\n#[unsafe(no_mangle)]\nfn f() {}\n";
        assert_eq!(broken("ucr-ebpf/src/main.rs", ebpf), []);
        assert_eq!(broken("ucr-ebpf-else/src/main.rs", ebpf), [(2, "fence")]);
    }

    #[test]
    fn words_in_strings_and_comments_are_no_code() {
        let text = "//! unsafe { }\n// #[allow(x)]\nconst A: &str = \"unsafe { #[allow(x)] }\";\n";
        assert_eq!(broken("ucr-userspace/src/model/mod.rs", text), []);
    }

    #[test]
    fn unsafe_code_says_why_it_is_sound() {
        assert_eq!(inside("fn f() {\n    unsafe { g() }\n}"), [(3, "safety")]);
        assert_eq!(inside("unsafe impl Send for S {}"), [(2, "safety")]);
        assert_eq!(inside("pub unsafe fn f() {}"), [(2, "safety")]);
        assert_eq!(inside("unsafe extern \"C\" { fn f(); }"), [(2, "safety")]);
        // The comment is about another statement.
        let other = "fn f() {\n    // SAFETY: a\n    unsafe { g() };\n    unsafe { h() };\n}";
        assert_eq!(inside(other), [(5, "safety")]);
        // A string is no comment.
        assert_eq!(inside("fn f() {\n let a = \"SAFETY:\"; unsafe { g() }\n}"), [(3, "safety")]);
    }

    #[test]
    fn an_explanation_is_found_before_the_statement() {
        for code in [
            "fn f() {\n    // SAFETY: a\n    unsafe { g() }\n}",
            "fn f() {\n    // SAFETY: a long one,\n    // over two lines.\n    unsafe { g() }\n}",
            "fn f() {\n    // SAFETY: a\n    let long =\n        h(1)\n            + unsafe { g() };\n}",
            "// SAFETY: a\n#[cfg(x)]\nunsafe impl Send for S {}",
            "/// Docs.\n///\n/// # Safety\n///\n/// a\n#[inline]\npub unsafe fn f() {}",
            "type F = unsafe extern \"C\" fn(i32);",
        ] {
            assert_eq!(inside(code), [], "{code}");
        }
    }

    #[test]
    fn lints_are_expected_not_allowed() {
        assert_eq!(inside("#[allow(dead_code)]\nfn f() {}"), [(2, "allow")]);
        assert_eq!(inside("#![allow(dead_code)]"), [(2, "allow")]);
        assert_eq!(inside("#[cfg_attr(x, allow(dead_code))]\nfn f() {}"), [(2, "allow")]);
        assert_eq!(inside("#[expect(dead_code, reason = \"x\")]\nfn allow(a: u8) {}"), []);
    }
}
