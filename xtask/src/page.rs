//! Parts of pages that a task writes, between two markers that name the task. What stands around stays.

use anyhow::{Context, Result};

/// `page` with `text` as the part of `task`.
pub(crate) fn with(page: &str, task: &str, text: &str) -> Result<String> {
    let (begin, end) = (format!("<!-- begin: {task} -->\n"), format!("<!-- end: {task} -->\n"));
    let marked = page.split_once(&begin).and_then(|(before, rest)| Some((before, rest.split_once(&end)?.1)));
    let (before, after) = marked.with_context(|| format!("the page has no part {task}"))?;
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let page = "a\n<!-- begin: x -->\nold\n<!-- end: x -->\nb\n";
        assert_eq!(
            with(page, "x", "new\n").ok().as_deref(),
            Some("a\n<!-- begin: x -->\n\nnew\n\n<!-- end: x -->\nb\n")
        );
        assert!(with(page, "y", "new").is_err());
    }
}
