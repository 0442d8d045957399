//! A Rust file as its rules look at it: text, tokens, and where it is in the module tree.

use std::path::Path;

use proc_macro2::{LexError, TokenStream};

/// One Rust file.
pub(super) struct Source<'a> {
    /// Relative to the workspace.
    pub(super) path: &'a Path,
    /// All of it.
    pub(super) text: &'a str,
    /// Its tokens: comments and what is in strings are not among them.
    pub(super) tokens: TokenStream,
}

/// Where a rule reports: line, rule, message.
pub(super) type Report<'a> = dyn FnMut(usize, &'static str, String) + 'a;

impl<'a> Source<'a> {
    /// Takes a file apart.
    pub(super) fn parse(path: &'a Path, text: &'a str) -> Result<Self, LexError> {
        Ok(Self { path, text, tokens: text.parse()? })
    }

    /// The module that the file is, below the library's root: `["image", "codec"]`. None if the
    /// file is not part of the `ucr` library or program.
    pub(super) fn module(&self) -> Option<Vec<String>> {
        let inside = self.path.strip_prefix("ucr-userspace/src").ok()?;
        let mut module: Vec<String> =
            inside.with_extension("").iter().map(|part| part.to_string_lossy().into()).collect();
        // The file that a folder, the library or the program starts with is not a module itself.
        if module.last().is_some_and(|last| last == "mod")
            || module == ["lib"]
            || module == ["main"]
        {
            module.pop();
        }
        Some(module)
    }
}
