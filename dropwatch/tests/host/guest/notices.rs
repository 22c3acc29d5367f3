//! What the kernel cannot show is said before the first report, and by doctor.

use testbed::watch::Watch;

use super::need_guest;
use crate::harness::{dropwatch, has_reasons, output};

const NO_REASONS: &str = "this kernel gives no drop reasons";
const NO_TCP: &str = "TCP's own drops do not appear";

#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn the_first_lines_of_a_run_say_what_is_missing() {
    need_guest();
    let mut watch = Watch::start(&mut dropwatch(&["-i", "500ms", "-c", "1"])).unwrap();
    let _first_report = watch.next_line(std::time::Duration::from_secs(30)).unwrap();
    let ended = watch.finish().unwrap();
    let first = ended.lines[..ended.lines.len().min(4)].join("\n");
    for notice in [NO_REASONS, NO_TCP] {
        assert_eq!(first.contains(notice), !has_reasons(), "{:#?}", ended.lines);
    }
}

#[test]
#[ignore = "needs a guest: cargo xtask vm"]
fn doctor_says_what_is_missing() {
    need_guest();
    let doctor = output(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(0), "{doctor:?}");
    let page = String::from_utf8(doctor.stdout).unwrap();
    // Long lines are broken to fit a terminal.
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    for notice in [NO_REASONS, NO_TCP, "TCP's own drops not reported by this kernel"] {
        assert_eq!(page.contains(notice), !has_reasons(), "{page}");
    }
    assert!(page.contains("dropwatch works here"), "{page}");
}
