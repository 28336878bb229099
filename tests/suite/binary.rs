//! The shipped file: what is in it and which system calls it makes.

use crate::common::*;
use object::Endianness::{self, Little};
use object::elf;
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader, SectionHeader};
use std::fs;
use std::io::Write;
use std::net::TcpStream;

/// Bytes that the file may have.
const LARGEST: usize = 16 * 1024;

// ---------------------------------------------------------------- the file

type Elf<'data> = ElfFile64<'data, Endianness>;

fn shipped() -> Vec<u8> {
    let command = forkline(&[]);
    fs::read(command.get_args().last().unwrap_or(command.get_program())).expect("the binary")
}

#[test]
fn it_is_small() {
    let size = shipped().len();
    assert!(size <= LARGEST, "{size} bytes, at most {LARGEST}");
}

#[test]
fn it_is_a_static_pie_that_needs_nobody() {
    let file = shipped();
    let elf = Elf::parse(&*file).expect("an ELF file");
    assert_eq!(elf.elf_header().e_type(Little), elf::ET_DYN);
    let flags_1 = dynamic(&elf, elf::DT_FLAGS_1);
    assert!(flags_1.iter().any(|flags| flags & u64::from(elf::DF_1_PIE) != 0), "not DF_1_PIE");
    assert!(dynamic(&elf, elf::DT_NEEDED).is_empty());
    assert_eq!(segments(&elf, elf::PT_INTERP).count(), 0);
}

/// Nobody would apply them: it would run, and crash where the first one is used.
#[test]
fn it_has_no_relocations() {
    let file = shipped();
    let elf = Elf::parse(&*file).expect("an ELF file");
    for tag in [elf::DT_RELSZ, elf::DT_RELASZ, elf::DT_RELRSZ, elf::DT_PLTRELSZ] {
        assert!(dynamic(&elf, tag).iter().all(|&size| size == 0), "tag {tag} has a size");
    }
    assert!(dynamic(&elf, elf::DT_TEXTREL).is_empty());
    for section in elf.elf_section_table().iter() {
        let kind = section.sh_type(Little);
        let relocates = [elf::SHT_REL, elf::SHT_RELA, elf::SHT_RELR].contains(&kind);
        assert!(!relocates || section.sh_size(Little) == 0, "a relocation section of type {kind}");
    }
}

#[test]
fn its_memory_is_never_writable_and_executable() {
    let file = shipped();
    let elf = Elf::parse(&*file).expect("an ELF file");
    assert!(segments(&elf, elf::PT_LOAD).any(|load| load.p_flags(Little) & elf::PF_X != 0));
    for load in segments(&elf, elf::PT_LOAD) {
        let flags = load.p_flags(Little);
        assert_ne!(flags & (elf::PF_W | elf::PF_X), elf::PF_W | elf::PF_X);
        // A writable page of the file would be copied in every child.
        assert!(flags & elf::PF_W == 0 || load.p_filesz(Little) == 0, "writable and from the file");
    }
    // Below its stack is no writable rest of a page, whatever page the kernel has. (With a
    // rest, Linux 5.10 would map a page of the file there.)
    let page = if elf.elf_header().e_machine(Little) == elf::EM_AARCH64 { 65536 } else { 4096 };
    let memory = segments(&elf, elf::PT_LOAD).last().expect("a segment");
    assert_eq!(memory.p_vaddr(Little) % page, 0, "its memory begins in the middle of a page");
    let stack: Vec<_> = segments(&elf, elf::PT_GNU_STACK).collect();
    assert_eq!(stack.len(), 1, "the kernel's default is an executable stack");
    assert_eq!(stack[0].p_flags(Little) & elf::PF_X, 0);
}

fn segments<'data>(
    elf: &Elf<'data>,
    kind: u32,
) -> impl Iterator<Item = &'data elf::ProgramHeader64<Endianness>> {
    elf.elf_program_headers().iter().filter(move |segment| segment.p_type(Little) == kind)
}

/// The values of this tag in the dynamic table that a loader would read.
fn dynamic(elf: &Elf, tag: i64) -> Vec<u64> {
    let mut tables = segments(elf, elf::PT_DYNAMIC);
    let table = tables.next().expect("PT_DYNAMIC").dynamic(Little, elf.data());
    let entries = table.expect("a dynamic table").expect("a dynamic table");
    let entries = entries.iter().map(|entry| (entry.d_tag.get(Little), entry.d_val.get(Little)));
    entries.filter(|&(found, _)| found == tag).map(|(_, value)| value).collect()
}

// ---------------------------------------------------------------- system calls

/// From the start to the end of the first connection and to a SIGKILL, in
/// strace's words; `*` is anything.
const PARENT: &[&str] = &[
    "execve(*) = 0",
    // Not the C's: handlers ask whether they run in this process or in a child.
    "getpid() = *",
    // Not the C's: signals come only where the server waits, and on another stack.
    "rt_sigprocmask(SIG_SETMASK, ~[], NULL, 8) = 0",
    "sigaltstack({ss_sp=0x*, ss_flags=0, ss_size=65536}, NULL) = 0",
    // Not the C's: the signals that end it.
    "rt_sigaction(SIGTERM, {sa_handler=0x*, sa_mask=~[], sa_flags=*SA_RESTART*}, {*}, 8) = 0",
    "rt_sigaction(SIGINT, {sa_handler=0x*, sa_mask=~[], sa_flags=*SA_RESTART*}, {*}, 8) = 0",
    "rt_sigaction(SIGQUIT, {sa_handler=0x*, sa_mask=~[], sa_flags=*SA_RESTART*}, {*}, 8) = 0",
    "rt_sigaction(SIGHUP, {sa_handler=0x*, sa_mask=~[], sa_flags=*SA_RESTART*}, {*}, 8) = 0",
    // Not the C's: when the timer is over, all of many children are asked.
    "rt_sigaction(SIGALRM, {sa_handler=0x*, sa_mask=~[], sa_flags=*SA_RESTART*}, {*}, 8) = 0",
    // Not the C's: a report that a file cannot hold is an error.
    "rt_sigaction(SIGXFSZ, {sa_handler=SIG_IGN, *}, {*}, 8) = 0",
    // Not the C's: a terminal does not stop it.
    "rt_sigaction(SIGTTOU, {sa_handler=SIG_IGN, *}, {*}, 8) = 0",
    "rt_sigaction(SIGCHLD, {sa_handler=0x*, sa_mask=~[], sa_flags=*SA_RESTART*}, {*}, 8) = 0",
    // Not the C's: a send to a closed connection is an error.
    "rt_sigaction(SIGPIPE, {sa_handler=SIG_IGN, *}, {*}, 8) = 0",
    "socket(AF_INET6, SOCK_STREAM, IPPROTO_IP) = 3",
    // Not the C's: IPv4 clients too, and a port of its own.
    "setsockopt(3, SOL_IPV6, IPV6_V6ONLY, [0], 4) = 0",
    "setsockopt(3, SOL_SOCKET, SO_REUSEPORT, [0], 4) = 0",
    "setsockopt(3, SOL_SOCKET, SO_REUSEADDR, [1], 4) = 0",
    "bind(3, {sa_family=AF_INET6, *\"::\"*}, 28) = 0",
    // Not the C's: what connections inherit. The first may arrive right after listen.
    "setsockopt(3, SOL_SOCKET, SO_OOBINLINE, [1], 4) = 0",
    "getsockopt(3, SOL_SOCKET, SO_KEEPALIVE, [0], [4]) = 0",
    "setsockopt(3, SOL_SOCKET, SO_KEEPALIVE, [1], 4) = 0",
    "setsockopt(3, SOL_TCP, TCP_KEEPIDLE, [60], 4) = 0",
    "setsockopt(3, SOL_TCP, TCP_KEEPINTVL, [20], 4) = 0",
    "setsockopt(3, SOL_TCP, TCP_KEEPCNT, [3], 4) = 0",
    "listen(3, 1024) = 0",
    // Not the C's, up to accept: the ready line's address, whether
    // standard error is a terminal, descriptors that were inherited (there is none
    // below), what no child gets of the parent's memory (the ranges have holes), the
    // filter, the ready line, and signals while it waits.
    "getsockname(3, {*}, [28]) = 0",
    "ioctl(2, TIOCGWINSZ, 0x*) = -1 ENOTTY (*)",
    "close_range(3, 2, 0) = -1 EINVAL (*)",
    "close_range(4, 4294967295, 0) = 0",
    "madvise(NULL, *, MADV_DONTFORK) = -1 ENOMEM (*)",
    "madvise(0x*, *, MADV_DONTFORK) = -1 ENOMEM (*)",
    "madvise(0x*, *, MADV_DOFORK) = 0",
    "prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) = 0",
    "seccomp(SECCOMP_SET_MODE_FILTER, 0, {*}) = 0",
    "pwritev2(2, [{iov_base=\"forkline: *}], 1, -1, RWF_NOWAIT) = *",
    "rt_sigprocmask(SIG_SETMASK, [], NULL, 8) = 0",
    "accept(3, {*}, [28]) = 4",
    // Not the C's: no signals between two steps.
    "rt_sigprocmask(SIG_SETMASK, ~[], NULL, 8) = 0",
    "clone(child_stack=NULL, flags=SIGCHLD) = *",
    "close(4) = 0",
    // Not the C's: as before.
    "rt_sigprocmask(SIG_SETMASK, [], NULL, 8) = 0",
    "accept(3, *) = ? ERESTARTSYS (*)",
    "--- SIGCHLD {*} ---",
    "wait4(-1, *, WNOHANG, NULL) = *",
    "wait4(-1, *, WNOHANG, NULL) = -1 ECHILD (*)",
    "rt_sigreturn(*) = *",
    "accept(3, *) = ?",
    "+++ killed by SIGKILL +++",
];

/// How each child begins. Both are not the C's: it takes signals, on its own stack.
const BEGINNING: [&str; 2] = [
    "sigaltstack({ss_sp=*, ss_flags=SS_DISABLE, *}, NULL) = 0",
    "rt_sigprocmask(SIG_SETMASK, [ALRM CHLD], NULL, 8) = 0",
];

const ECHO_CHILD: &[&str] = &[
    "close(3) = 0",
    "recvfrom(4, \"Hello\\n\", *, 0, NULL, NULL) = 6",
    "write(1, \"server received 6 bytes\\n\", 24) = 24",
    "sendto(4, \"Hello\\n\", 6, 0, NULL, 0) = 6",
    "recvfrom(4, \"Why not?\\n\", *, 0, NULL, NULL) = 9",
    "write(1, \"server received 9 bytes\\n\", 24) = 24",
    "sendto(4, \"Why not?\\n\", 9, 0, NULL, 0) = 9",
    "recvfrom(4, \"\", *, 0, NULL, NULL) = 0",
    "close(4) = 0",
    "exit_group(0) = ?",
    "+++ exited with 0 +++",
];

const ROT13_CHILD: &[&str] = &[
    "close(3) = 0",
    "recvfrom(4, \"Hello\\n\", *, 0, NULL, NULL) = 6",
    "sendto(4, \"Uryyb\\n\", 6, 0, NULL, 0) = 6",
    "recvfrom(4, \"Why not?\\n\", *, 0, NULL, NULL) = 9",
    "sendto(4, \"Jul abg?\\n\", 9, 0, NULL, 0) = 9",
    "recvfrom(4, \"\", *, 0, NULL, NULL) = 0",
    "close(4) = 0",
    "exit_group(0) = ?",
    "+++ exited with 0 +++",
];

/// A burst of lines costs one recv and one send.
const BURST_CHILD: &[&str] = &[
    "close(3) = 0",
    "recvfrom(4, \"1234567\\n*\"..., *, 0, NULL, NULL) = 800",
    "sendto(4, \"1234567\\n*\"..., 800, 0, NULL, 0) = 800",
    "recvfrom(4, \"\", *, 0, NULL, NULL) = 0",
    "close(4) = 0",
    "exit_group(0) = ?",
    "+++ exited with 0 +++",
];

#[test]
fn it_makes_no_superfluous_system_call() {
    if !tool("strace") || !ipv6() {
        return;
    }
    let lines = |mut client: &TcpStream| {
        for line in [&b"Hello\n"[..], b"Why not?\n"] {
            client.write_all(line).expect("send");
            receive(client, line.len());
        }
    };
    let burst = |mut client: &TcpStream| {
        client.write_all(&b"1234567\n".repeat(100)).expect("send");
        receive(client, 800);
    };
    makes_these_calls(&["echo", "0"], lines, ECHO_CHILD);
    makes_these_calls(&["rot13", "0"], lines, ROT13_CHILD);
    makes_these_calls(&["-q", "echo", "0"], burst, BURST_CHILD);
}

fn makes_these_calls(args: &[&str], conversation: impl Fn(&TcpStream), expected: &[&str]) {
    let calls = scratch("calls");
    let mut strace = Server::spawn(strace(&calls, "-ff -q -a1").args(command_line(args)));
    let parent = children_of(strace.pid)[0];

    let client = strace.connect();
    conversation(&client);
    let child = children_of(parent)[0];
    wait_for("the parent waits in accept", || accepts(parent));
    drop(client);
    wait_for("the child is gone", || stat(child).is_none());
    wait_for("the parent waits in accept", || accepts(parent));
    kill(parent as i32, libc::SIGKILL);
    strace.wait();
    let of_the_child = [&BEGINNING[..], expected].concat();
    for (pid, expected) in [(parent, PARENT), (child, &of_the_child)] {
        let file = format!("{}.{pid}", calls.display());
        let made = fs::read_to_string(&file).expect("strace's output");
        fs::remove_file(&file).expect("remove");
        let fits = made.lines().count() == expected.len()
            && made.lines().zip(expected).all(|(call, pattern)| fits(call, pattern));
        assert!(fits, "{args:?} made\n{made}expected were\n{}", expected.join("\n"));
    }
}

/// Whether the text is the pattern, in which `*` is anything.
fn fits(text: &str, pattern: &str) -> bool {
    let Some((beginning, rest)) = pattern.split_once('*') else { return text == pattern };
    let Some(text) = text.strip_prefix(beginning) else { return false };
    (0..=text.len()).any(|skip| text.is_char_boundary(skip) && fits(&text[skip..], rest))
}
