//! Nothing that was typed is passed over in silence: it is explained, or said to be unknown, with exit
//! status 2.

use std::process::Command;

use dropwatch::{command::explain, exit};

use crate::{host, known, outputs};

fn not_known(words: &[&str]) -> Vec<String> {
    let page = explain::page(known(), words, &host("6.18"));
    page.unwrap_or_else(|failure| panic!("{words:?}: {failure}")).not_known
}

const ROW: &str = "4500 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 81.8%";
const SERIES: &str = r#"dropwatch_drops_total{symbol="tcp_v4_rcv",reason="NO_SOCKET"} 9"#;

#[test]
fn what_stands_beside_names_rows_and_series_is_said_to_be_unknown() {
    let series = |name: &str| format!("{SERIES}\n{name} 3");
    for (words, expected) in [
        (&[ROW, "xyzzy"][..], &["xyzzy"][..]),
        (&["xyzzy", ROW], &["xyzzy"]),
        (&[&format!("{ROW}\nxyzzy")], &["xyzzy"]),
        (&[&format!("{ROW}\n{ROW} FOO_BAR")], &["FOO_BAR"]),
        (
            &[r#"dropwatch_finding_reports_total{rule="nonsense",severity="warning"} 1"#],
            &["nonsense"],
        ),
        (&[&series("some_metric_total")], &["some_metric_total"]),
        (&[&series(r#"some_metric_total{rule="mtu"}"#)], &["some_metric_total"]),
        (&[&series(r#"dropwatch_findings{rule="nonsense"}"#)], &["nonsense"]),
        (&[r#"{"v":1,"type":"nonsense"}"#], &["nonsense"]),
        (&[r#"{"v":1,"type":"report","nonsense":3}"#], &["nonsense"]),
        (&["tcp_v4_rcv+0x91 (NO_SOKET)"], &["NO_SOKET"]),
        (&["foo+0x91 [bar] (NO_SOKET)", ROW], &["foo+0x91", "NO_SOKET"]),
        (&[r#"{"symbol":"foo","offset":1,"count":3}"#, ROW], &["foo"]),
        (&["NO_SOCKET", "xyzzy"], &["xyzzy"]),
        (&["conntrack_table_full", "critical", "gw", "nonsense"], &["gw", "nonsense"]),
        (&["Udp: InErrors Nonsense"], &["Udp.Nonsense"]),
    ] {
        let said = not_known(words);
        let all = expected.iter().all(|name| said.iter().any(|it| it == name));
        assert!(all && said.len() <= expected.len(), "{words:?}: {said:?}");
    }
}

/// The reason of a row is explained whatever its function, of which is said what the row has.
#[test]
fn a_row_of_a_function_that_nobody_has_described_is_explained_by_its_reason() {
    for (typed, function, module) in [
        ("foo+0x91 [bar] (NO_SOCKET)", "foo+0x91", Some("bar")),
        ("foo+0x91 (NO_SOCKET)", "foo+0x91", None),
        ("12 packets dropped at foo+0x91 [bar] (NO_SOCKET) 3.1%", "foo+0x91", Some("bar")),
        (r#"dropwatch_drops_total{symbol="foo",reason="NO_SOCKET"} 1"#, "foo", None),
        (r#"{"symbol":"foo","offset":1,"reason":"NO_SOCKET","count":3}"#, "foo", None),
        ("3 packets dropped at foo+0x1 (NOT_SPECIFIED) 3.1%", "foo+0x1", None),
    ] {
        let page = explain::page(known(), &[typed], &host("6.18"));
        let page = page.unwrap_or_else(|failure| panic!("{typed}: {failure}"));
        let expected = module.map_or(function.to_owned(), |it| format!("{function} [{it}]"));
        assert_eq!((page.functions, page.not_known.len()), (vec![expected], 0), "{typed}");
        let mut command = Command::new(env!("CARGO_BIN_EXE_dropwatch"));
        let output = command.args(["explain", typed]).env("COLUMNS", "200").output().expect("runs");
        let shown = String::from_utf8(output.stdout).expect("UTF-8");
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{typed}");
        let whose = module.map_or(String::new(), |module| format!(" of the module {module}"));
        let said = format!("{function}\n  a function{whose} of which nothing more is known");
        assert!(shown.contains(&said), "{typed}: {shown}");
    }
}

#[test]
fn what_is_part_of_a_row_or_a_line_is_not() {
    for text in [
        ROW,
        "  9900 at nf_hook_slow+0x7d (NETFILTER_DROP) 97.8%, new",
        "   200 at tcp_v4_rcv+0x91 (NO_SOCKET) 2.0%, 20/s; 4.0/s before",
        "  1060/s       13800  ██▇▇▇██▇▇▇██  __udp4_lib_rcv+0x4bc (NO_SOCKET)",
        "  1060/s       13800  @@####@@  __udp4_lib_rcv+0x4bc (NO_SOCKET)",
        "   2006/s       0/s  __udp4_lib_rcv+0x4bc (NO_SOCKET): gone",
        "60  packets\tdropped at  __udp4_lib_rcv+0x4bc [udp] (NO_SOCKET) 88.2% 0xffffffff81",
        "dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET), netns gw, stands for 12 drops",
        "gw/eth0   33872 → 9 Len=14   dropped at __udp4_lib_rcv+0x4bc (NO_SOCKET), netns gw",
        "07:35:06.204518  nf_hook_slow+0x7d (NETFILTER_DROP) · gw · eth0 · tcp 10.0.0.2:5 → 10.0.0.3:80 SYN · on CPU: nginx/812",
        "4500 packets dropped at nf_hook_slow+0x7d (NETFILTER_DROP) 81.8%\n       gw · outside · tcp 198.18.1.2:* → 198.18.1.1:8080 SYN\n       (52 samples)\n       ip_rcv ← __netif_receive_skb_one_core\n",
        SERIES,
        r#"dropwatch_drops_total{symbol="unknown",module="",reason="NO_SOCKET"} 9"#,
        r#"{"v":1,"type":"report","seq":1}"#,
        r#"{"v":1,"type":"end","reports":1}"#,
        r#"{"v":1,"type":"conntrack","host":"gw"}"#,
        r#"{"v":1,"type":"comparison"}"#,
        "NO_SOCKET TCP_CSUM",
        "the gateway says conntrack_table_full since this morning, and nobody knows why that is",
    ] {
        assert_eq!(not_known(&[text]), [""; 0], "{text}");
    }
}

/// Of rows as dropwatch prints them, nothing but a function may be unknown.
#[test]
fn rows_of_golden_texts_are_known_but_for_their_functions() {
    let (mut rows, mut loose) = (0, Vec::new());
    for line in
        outputs::lines().iter().filter(|line| line.contains("+0x") && !line.contains('\u{fffd}'))
    {
        rows += 1;
        let said = not_known(&[line]);
        if said.iter().any(|name| !name.contains("+0x")) {
            loose.push(format!("{line}: {said:?}"));
        }
    }
    assert!(rows > 20, "{rows}");
    assert!(loose.is_empty(), "{}", loose.join("\n"));
}

/// What is known is shown all the same, and the program says on standard error what is not.
#[test]
fn whatever_is_not_known_ends_with_status_2_and_names_that_look_like_it() {
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dropwatch"));
        let output = command.arg("explain").args(words).output().expect("runs");
        let [shown, said] =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).expect("UTF-8"));
        (output.status.code(), shown, said)
    };
    for (words, shown, said) in [
        (&["tcp_v4_rcv+0x91 (NO_SOKET)"][..], "tcp_v4_rcv", "`NO_SOKET` (did you mean NO_SOCKET"),
        (&["NO_SOCKET", "xyzzy"], "NO_SOCKET", "nothing is known about `xyzzy`"),
        (&["--json", "NO_SOCKET", "xyzzy"], r#""not_known":["xyzzy"]"#, "about `xyzzy`"),
        (&["NO_SOCKET", "TCP_CSM"], "NO_SOCKET", "`TCP_CSM` (did you mean TCP_CSUM"),
        (&["TCP_CSM"], "", "did you mean TCP_CSUM"),
    ] {
        let (code, page, message) = run(words);
        assert_eq!(code, Some(exit::USAGE.into()), "{words:?}: {message}");
        assert!(page.contains(shown), "{words:?}: {page}");
        assert!(message.contains(said) && message.lines().count() == 1, "{words:?}: {message}");
    }
    // Some rows known, and one that is not.
    let said = not_known(&[ROW, "foo+0x9 (BAR_BAZ)"]);
    assert_eq!(said, ["foo+0x9 (BAR_BAZ)"]);
    let (code, _, message) = run(&[ROW]);
    assert_eq!((code, message.as_str()), (Some(0), ""));
}
