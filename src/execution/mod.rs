//! What came of a piece of code.

/// What came of a piece of code.
#[derive(Debug)]
pub struct Execution {}
