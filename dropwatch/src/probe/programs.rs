//! The programs of the object: which there are, where each belongs, and what a run is without it.
//!
//! Another tracepoint takes a function on the kernel side and an entry of [`PROGRAMS`]. Pure, but for
//! the steps that are handed in.

use std::{ffi::CStr, fmt};

use super::plan::AttachRefusal;

/// A program, and the raw tracepoint that it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Program {
    /// Name of its function in the object.
    pub name: &'static str,
    pub tracepoint: Tracepoint,
    /// Whether it reads the drop reason where the candidate has reasons, which older kernels do not
    /// give.
    pub reads_reason: bool,
    pub need: Need,
}

/// A tracepoint of the kernel, such as `skb:kfree_skb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracepoint {
    pub system: &'static str,
    /// Name by which bpf(2) finds the tracepoint.
    pub name: &'static CStr,
}

impl fmt::Display for Tracepoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.system, self.name.to_string_lossy())
    }
}

/// What follows where the kernel refuses a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing can be counted.
    Needed,
    /// The run goes on, and says in its first lines that it lacks this.
    Optional { lack: &'static str },
}

/// Every program of the object that ships.
pub const PROGRAMS: &[Program] = &[Program {
    name: "dropwatch_kfree_skb",
    tracepoint: Tracepoint { system: "skb", name: c"kfree_skb" },
    reads_reason: true,
    need: Need::Needed,
}];

/// Needed programs are attached first: an optional one before a needed one that is then refused
/// would leave its counts behind for the next candidate.
const _: () = assert!(needed_come_first(PROGRAMS) && matches!(PROGRAMS[0].need, Need::Needed));

const fn needed_come_first(programs: &[Program]) -> bool {
    let mut index = 1;
    while index < programs.len() {
        let needed = matches!(programs[index].need, Need::Needed);
        if needed && !matches!(programs[index - 1].need, Need::Needed) {
            return false;
        }
        index += 1;
    }
    true
}

/// What a run lacks, because the kernel refuses an optional program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub program: Program,
    pub what: &'static str,
    pub refusal: AttachRefusal,
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.what, self.refusal, self.program.name)
    }
}

/// Takes one step of starting, such as loading, with each program that passed the steps before. An
/// optional program that is refused is left out and added to `lacks`.
///
/// # Errors
/// Why a needed one is refused.
pub(super) fn each<P, Q>(
    programs: Vec<(Program, P)>,
    lacks: &mut Vec<Lack>,
    mut step: impl FnMut(Program, P) -> Result<Q, AttachRefusal>,
) -> Result<Vec<(Program, Q)>, AttachRefusal> {
    let mut went = Vec::with_capacity(programs.len());
    for (program, state) in programs {
        match (step(program, state), program.need) {
            (Ok(state), _) => went.push((program, state)),
            (Err(refusal), Need::Needed) => return Err(refusal),
            (Err(refusal), Need::Optional { lack }) => {
                lacks.push(Lack { program, what: lack, refusal });
            }
        }
    }
    Ok(went)
}

#[cfg(test)]
mod tests {
    use aya_obj::Object;

    use super::{
        super::{
            attach::{OBJECT, Prepared, Requested},
            plan::Step,
        },
        *,
    };

    const COUNTS: Program = PROGRAMS[0];
    const ALSO: Program = Program {
        name: "dropwatch_also",
        tracepoint: Tracepoint { system: "skb", name: c"no_such_tracepoint" },
        reads_reason: false,
        need: Need::Optional { lack: "what it counts is missing" },
    };

    fn refuse(name: &str) -> Result<(Vec<&'static str>, Vec<Lack>), AttachRefusal> {
        let mut lacks = Vec::new();
        let went = each(vec![(COUNTS, ()), (ALSO, ())], &mut lacks, |program, ()| {
            match program.name == name {
                true => {
                    let step = Step::Attach { tracepoint: program.tracepoint, reason: true };
                    Err(AttachRefusal::from_errno(step, None, String::new()))
                }
                false => Ok(()),
            }
        })?;
        Ok((went.iter().map(|(program, ())| program.name).collect(), lacks))
    }

    #[test]
    fn an_optional_program_that_is_refused_is_reported_and_left_out() {
        assert_eq!(refuse("none"), Ok((vec![COUNTS.name, ALSO.name], vec![])));
        let (went, lacks) = refuse(ALSO.name).unwrap();
        assert_eq!((went, lacks.len()), (vec![COUNTS.name], 1));
        let shown = lacks[0].to_string();
        assert!(shown.starts_with("what it counts is missing: attaching"), "{shown}");
        assert!(shown.ends_with("(dropwatch_also)"), "{shown}");
    }

    #[test]
    fn a_needed_program_that_is_refused_is_the_end() {
        assert!(matches!(refuse(COUNTS.name), Err(AttachRefusal::Other { .. })));
    }

    #[test]
    fn needed_programs_stand_before_optional_ones() {
        assert!(needed_come_first(&[COUNTS, COUNTS, ALSO]));
        assert!(!needed_come_first(&[COUNTS, ALSO, COUNTS]));
    }

    #[test]
    fn the_object_and_the_table_have_the_same_programs() {
        let object = Object::parse(OBJECT).unwrap();
        let mut names: Vec<_> = object.programs.keys().map(String::as_str).collect();
        names.sort_unstable();
        let mut listed: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
        listed.sort_unstable();
        assert_eq!(names, listed);
        for Program { tracepoint, .. } in PROGRAMS {
            let section = [&b"raw_tp/"[..], tracepoint.name.to_bytes_with_nul()].concat();
            assert!(OBJECT.windows(section.len()).any(|bytes| bytes == section), "{tracepoint}");
        }
    }

    /// The kernel itself refuses one of two: the counting program again, at a tracepoint that no
    /// kernel has.
    #[test]
    fn the_running_kernel_refuses_one_of_two() {
        let again = Program { name: COUNTS.name, ..ALSO };
        let mut prepared = Prepared::new().unwrap();
        prepared.programs = vec![COUNTS, again];
        let mut probe = match prepared.attach(&Requested::default()) {
            Err(error) if error.is_permission() => {
                return testbed::unproved::unproved("this user may not load programs");
            }
            probe => probe.unwrap(),
        };
        let [Lack { program, refusal, .. }] = probe.lacks() else { panic!("{:?}", probe.lacks()) };
        assert_eq!(*program, again);
        assert_eq!(*refusal, AttachRefusal::NoTracepoint { tracepoint: again.tracepoint });
        assert!(probe.read(|netns| netns.inum).is_ok(), "what is needed counts");

        let mut prepared = Prepared::new().unwrap();
        prepared.programs = vec![Program { need: Need::Needed, ..again }];
        let error = prepared.attach(&Requested::default()).unwrap_err().to_string();
        assert!(error.ends_with("this kernel has no tracepoint skb:no_such_tracepoint"), "{error}");
    }
}
