//! `docs/kernels.md`, written from a matrix run.

use anyhow::{Result, ensure};

use super::{image, results::Matrix};
use crate::project::Project;

/// Writes the page.
///
/// # Errors
/// When the run failed: the page tells what works.
pub(super) fn write(project: &Project, matrix: &Matrix) -> Result<()> {
    ensure!(matrix.is_success(), "docs/kernels.md stays as it is: the run failed");
    image::write_whole(&project.root.join("docs/kernels.md"), b"")
}
