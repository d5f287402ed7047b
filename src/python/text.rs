//! A kernel's text for terminals and file names.

use std::borrow::Cow;

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::execution;

/// The text without what controls a terminal; the same object where there is nothing of it.
#[pyfunction]
pub(super) fn printable<'py>(text: &Bound<'py, PyString>) -> Bound<'py, PyString> {
    shown(text, execution::printable)
}

/// The text as a terminal shows it where it holds carriage returns; otherwise the same object.
#[pyfunction]
pub(super) fn overwritten<'py>(text: &Bound<'py, PyString>) -> Bound<'py, PyString> {
    shown(text, execution::overwritten)
}

fn shown<'py>(text: &Bound<'py, PyString>, show: fn(&str) -> Cow<'_, str>) -> Bound<'py, PyString> {
    // Lone surrogates, which no terminal can be sent, are replaced.
    match text.to_string_lossy() {
        // Of 64 MiB, each takes up to a second: other threads of the interpreter go on meanwhile.
        Cow::Borrowed(same) => match text.py().detach(|| show(same)) {
            Cow::Borrowed(_) => text.clone(),
            Cow::Owned(shown) => PyString::new(text.py(), &shown),
        },
        Cow::Owned(replaced) => PyString::new(text.py(), &text.py().detach(|| show(&replaced))),
    }
}

/// The same for the name of a file, from which nothing is left out.
#[pyfunction]
pub(super) fn printable_name(name: &[u8]) -> Cow<'_, [u8]> {
    Cow::Owned(execution::printable_name(name))
}
