use std::time::Instant;
fn main() {
    let t0 = Instant::now();
    let mut p = dropwatch::probe::Probe::attach(false).unwrap();
    eprintln!("attached after {:?}", t0.elapsed());
    std::thread::sleep(std::time::Duration::from_secs(1));
    let t0 = Instant::now();
    p.detach();
    eprintln!("detached after {:?}", t0.elapsed());
    let t0 = Instant::now();
    eprintln!("{:?}", p.read().unwrap());
    eprintln!("read after {:?}", t0.elapsed());
    eprintln!("{}", std::fs::read_to_string("/proc/self/status").unwrap());
}
