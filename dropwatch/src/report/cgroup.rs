//! What a control group is called: the container or service that a process belongs to.
//!
//! Container runtimes and systemd name the groups that they make after what runs in them; the
//! kernel knows only the path.

/// Shortest run of hexadecimal digits taken for a container's number: runtimes use 64.
const NUMBER: usize = 32;
/// Digits of a container's number that are shown, as `docker ps` and `crictl ps` do.
const SHOWN: usize = 12;

/// Container or service of the group at `path` (`/proc/PID/cgroup`): `docker-8f3ab1c2d4e5`,
/// `nginx.service`. `None` for sessions of users, and for the rest of the system.
pub fn unit(path: &str) -> Option<String> {
    let containers = path.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let number = part.rsplit(['-', ':']).next()?;
        let is_number = number.len() >= NUMBER && number.bytes().all(|b| b.is_ascii_hexdigit());
        let runtime = part.strip_suffix(number)?.trim_end_matches(['-', ':']);
        let runtime = runtime.strip_prefix("cri-").unwrap_or(runtime);
        is_number.then(|| (runtime.to_owned(), number[..SHOWN].to_owned()))
    });
    if let Some((runtime, number)) = containers {
        // Docker's and LXC's own layout has the runtime in the folder above.
        let above = || path.split('/').find(|part| ["docker", "lxc", "kubepods"].contains(part));
        let runtime = Some(runtime.as_str()).filter(|name| !name.is_empty()).or_else(above);
        return Some(format!("{}-{number}", runtime.unwrap_or("container")));
    }
    let service = path.rsplit('/').find(|part| part.ends_with(".service"))?;
    (!service.starts_with("user@")).then(|| service.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_called_as_their_tools_call_them() {
        let id = "8f3ab1c2d4e5f60718293a4b5c6d7e8f8f3ab1c2d4e5f60718293a4b5c6d7e8f";
        let unit = |path: &str| unit(&path.replace("ID", id)).unwrap();
        assert_eq!(unit("/system.slice/docker-ID.scope"), "docker-8f3ab1c2d4e5");
        assert_eq!(unit("/docker/ID"), "docker-8f3ab1c2d4e5");
        assert_eq!(
            unit("/kubepods.slice/kubepods-pod1.slice/cri-containerd-ID.scope"),
            "containerd-8f3ab1c2d4e5"
        );
        assert_eq!(unit("/kubepods/burstable/pod1/ID"), "kubepods-8f3ab1c2d4e5");
        assert_eq!(unit("/system.slice/libpod-ID.scope/container"), "libpod-8f3ab1c2d4e5");
        assert_eq!(unit("/machine/ID"), "container-8f3ab1c2d4e5");
    }

    #[test]
    fn services_by_their_name_and_nothing_else() {
        assert_eq!(unit("/system.slice/nginx.service").as_deref(), Some("nginx.service"));
        assert_eq!(unit("/system.slice/a.service/child").as_deref(), Some("a.service"));
        assert_eq!(unit("/user.slice/user-0.slice/session-3.scope"), None);
        assert_eq!(unit("/user.slice/user-0.slice/user@0.service/app.slice/app.scope"), None);
        assert_eq!(unit("/"), None);
        assert_eq!(unit(""), None);
    }
}
