//! Socket options that nix has no word for.

use std::{io, os::fd::AsRawFd};

/// Sets an option whose value is an int.
///
/// # Errors
/// The kernel's.
pub(crate) fn set_int(
    socket: &impl AsRawFd,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    // SAFETY: pointer and length describe `value`, which the kernel only reads.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of_val(&value) as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Numbers in a connection's stream: of the next byte that it sends, and of the next that it expects
/// (`TCP_REPAIR`, include/uapi/linux/tcp.h; the connection goes on after it).
///
/// # Errors
/// The kernel's.
pub(crate) fn stream_numbers(socket: &impl AsRawFd) -> io::Result<[u32; 2]> {
    const OFF_WITHOUT_PROBE: libc::c_int = -1;
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, 1)?;
    let of = |queue| {
        set_int(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR_QUEUE, queue)?;
        let mut number = 0_u32;
        let mut length = size_of_val(&number) as libc::socklen_t;
        // SAFETY: pointer and length describe `number`, of which any bytes are valid.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_QUEUE_SEQ,
                (&raw mut number).cast(),
                &raw mut length,
            )
        };
        if result == 0 { Ok(number) } else { Err(io::Error::last_os_error()) }
    };
    // TCP_SEND_QUEUE, TCP_RECV_QUEUE
    let numbers = [of(2)?, of(1)?];
    set_int(socket, libc::IPPROTO_TCP, libc::TCP_REPAIR, OFF_WITHOUT_PROBE)?;
    Ok(numbers)
}

/// Bytes that what waits for a reader takes (`SO_MEMINFO`, Linux 4.12).
///
/// # Errors
/// The kernel's.
pub(crate) fn receive_memory(socket: &impl AsRawFd) -> io::Result<u32> {
    let mut values = [0_u32; 9]; // SK_MEMINFO_VARS; the first is SK_MEMINFO_RMEM_ALLOC
    let mut length = size_of_val(&values) as libc::socklen_t;
    // SAFETY: pointer and length describe `values`, of which any bytes are valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            values.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(values[0]) } else { Err(io::Error::last_os_error()) }
}

/// Whether network namespaces have numbers that are never given again (`SO_NETNS_COOKIE`, Linux
/// 5.14), and may be asked for them.
pub(crate) fn has_netns_cookie(socket: &impl AsRawFd) -> bool {
    /// Of include/uapi/asm-generic/socket.h.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: pointer and length describe `cookie`, of which any bytes are valid.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    result == 0
}
