//! What the running kernel is: its types, its offsets, its features.

pub mod btf;
pub mod clock;
pub mod interrupts;
pub mod netns;
pub mod offsets;
pub mod start;
