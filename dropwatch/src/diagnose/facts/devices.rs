//! What a rule asks about devices, and about what decides there.

use super::{Answered, Facts};
use crate::report::{
    device::{Device, Filter, Frame, GroupHook, GroupProgram, Hook, PortVlans},
    facts::Owner,
    question::{Answer, Question},
};

impl Facts<'_> {
    /// The state of a device in the namespace `netns`, at the end of the report.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn device(&self, netns: u32, index: u32) -> Answered<Box<Device>> {
        self.answer(netns, Question::Device(index), |answer| match answer {
            Answer::Device(device) => Some(device),
            _ => None,
        })
    }

    /// The port by which a bridge in the namespace `netns` would send a frame on; `None` where it knows
    /// none for that address.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn forwarding(&self, netns: u32, frame: Frame) -> Answered<Option<Box<Device>>> {
        self.answer(netns, Question::Forwarding(frame), |answer| match answer {
            Answer::Forwarding(port) => Some(port),
            _ => None,
        })
    }

    /// The VLANs of a bridge's port in the namespace `netns`; `None` where the bridge does not filter.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn port_vlans(&self, netns: u32, port: u32) -> Answered<Option<PortVlans>> {
        self.answer(netns, Question::PortVlans(port), |answer| match answer {
            Answer::PortVlans(vlans) => Some(vlans),
            _ => None,
        })
    }

    /// Whether a VXLAN device in the namespace `netns` knows a host to send a frame to.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn has_remote(&self, netns: u32, frame: Frame) -> Answered<bool> {
        self.answer(netns, Question::Remote(frame), |answer| match answer {
            Answer::Remote(known) => Some(known),
            _ => None,
        })
    }

    /// The filters of traffic control at a device in the namespace `netns`.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn filters(&self, netns: u32, hook: Hook) -> Answered<Vec<Filter>> {
        self.answer(netns, Question::Filters(hook), |answer| match answer {
            Answer::Filters(filters) => Some(filters),
            _ => None,
        })
    }

    /// The processes that have a tap or tun device of the namespace `netns` open.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn readers(&self, netns: u32, device: u32) -> Answered<Vec<Owner>> {
        self.answer(netns, Question::Readers(device), |answer| match answer {
            Answer::Readers(readers) => Some(readers),
            _ => None,
        })
    }

    /// The programs of control groups that decide over packets of a process.
    ///
    /// # Errors
    /// See [`Answered`].
    pub fn group_programs(&self, netns: u32, hook: GroupHook) -> Answered<Vec<GroupProgram>> {
        self.answer(netns, Question::GroupPrograms(hook), |answer| match answer {
            Answer::GroupPrograms(programs) => Some(programs),
            _ => None,
        })
    }
}
