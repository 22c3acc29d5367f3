//! Why the kernel's verifier refuses a program: it says so itself, when it is asked once more.

use super::sys::{self, Code};

/// Room for the verifier's log, bytes: it describes every path that was looked at, and kernels
/// before 6.4 keep the beginning of a log that is too long, while the end is what matters.
const ROOM: usize = 8 << 20;
/// Lines before the last that are shown: the state of the registers, and the instruction.
const LINES: usize = 8;

/// Has the program refused once more, and returns the part of the verifier's log that says why.
pub(super) fn ask(program: &Code<'_>) -> Vec<String> {
    let mut log = vec![0; ROOM];
    // The result is no news: the kernel has refused this program a moment ago.
    let _refused = sys::load(program, &mut log);
    let text = log.split(|byte| *byte == 0).next().unwrap_or_default();
    essence(&String::from_utf8_lossy(text))
}

/// The last lines, but for the statistics at the end.
fn essence(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let end = lines.iter().rposition(|line| !is_statistics(line)).map_or(0, |last| last + 1);
    lines[end.saturating_sub(LINES)..end].iter().map(|line| (*line).to_owned()).collect()
}

/// `print_verification_stats()`, kernel/bpf/verifier.c.
fn is_statistics(line: &str) -> bool {
    ["processed ", "verification time ", "stack depth "].iter().any(|begin| line.starts_with(begin))
}

#[cfg(test)]
mod tests {
    use aya_obj::generated::bpf_insn;
    use testbed::unproved::unproved;

    use super::{super::sys::Arguments, *};

    #[test]
    fn the_reason_is_before_the_statistics() {
        let log = "func#0 @0\n0: R1=ctx() R10=fp0\n0: (95) exit\nR0 !read_ok\n\
            verification time 40 usec\nstack depth 0\nprocessed 1 insns (limit 1000000)\n\n";
        let said = essence(log);
        assert_eq!(said.last().map(String::as_str), Some("R0 !read_ok"));
        assert_eq!(said.len(), 4);
        let long: String = (0..1000).map(|line| format!("{line}\n")).collect();
        assert_eq!(essence(&long).len(), LINES);
        assert_eq!(essence(""), [""; 0]);
        assert_eq!(essence("processed 1 insns"), [""; 0]);
    }

    #[test]
    fn the_running_kernel_says_why() {
        // `exit`, with no result.
        let code = [bpf_insn {
            code: 0x95,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(0, 0),
            off: 0,
            imm: 0,
        }];
        let program = Code {
            name: "refused",
            arguments: Arguments::Raw,
            instructions: &code,
            license: c"GPL",
        };
        match sys::load(&program, &mut []) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                return unproved("this user may not load programs");
            }
            Err(_) => {}
            Ok(_) => panic!("a program without a result was taken"),
        }
        let said = ask(&program);
        assert!(said.iter().any(|line| line.contains("R0 !read_ok")), "{said:?}");
    }
}
