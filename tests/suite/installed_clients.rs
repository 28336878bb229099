//! The clients that people have at hand, with both services over IPv4 and IPv6.

use crate::common::*;
use std::process::Command;

#[test]
fn bash_dev_tcp() {
    talk(
        "bash",
        r#"exec 3<>"/dev/tcp/$HOST/$PORT"
           printf %s "$TEXT" >&3
           for _ in 1 2; do IFS= read -r line <&3; printf '%s\n' "$line"; done"#,
    );
}

#[test]
fn socat() {
    // -t: how long it waits for answers after the end of its input.
    talk("socat", r#"printf %s "$TEXT" | socat -t 120 - "tcp:$URL""#);
}

#[test]
fn netcat() {
    let Some(help) = tool("nc").then(|| run(Command::new("nc").arg("-h"))) else { return };
    if !text(&help.stderr).contains("OpenBSD") {
        return skipped("nc is not OpenBSD's");
    }
    talk("nc", r#"printf %s "$TEXT" | nc -N "$HOST" "$PORT""#);
}

#[test]
fn python() {
    talk(
        "python3",
        r#"exec python3 -c '
import os, socket
with socket.create_connection((os.environ["HOST"], os.environ["PORT"])) as client:
    client.sendall(os.environ["TEXT"].encode())
    client.shutdown(socket.SHUT_WR)
    print(client.makefile().read(), end="")'"#,
    );
}

/// Telnet ends each line with CR LF; the CR is a byte like others.
#[test]
fn telnet() {
    let server = talk(
        "telnet",
        r#"coproc telnet "$HOST" "$PORT"
           printf %s "$TEXT" >&"${COPROC[1]}"
           for n in 1 2 3 4 5; do
               IFS= read -r line <&"${COPROC[0]}"
               [ $n -le 3 ] || printf '%s\n' "${line%$'\r'}" # 3 lines are telnet's own
           done"#,
    );
    if let Some(server) = server {
        let (stdout, _) = server.stop();
        assert!(stdout.starts_with("server received 9 bytes\nserver received 10 bytes\n"));
    }
}

/// Runs the script in bash against each service: it sends $TEXT, two lines, to
/// $HOST and $PORT and prints what comes back. Gives the echo server.
fn talk(client: &str, script: &str) -> Option<Server> {
    if !tool("bash") || !tool(client) {
        return None;
    }
    let rot13 = Server::start(&["rot13", "0"]);
    let echo = Server::start(&["echo", "0"]);
    let hosts = if ipv6() { &["127.0.0.1", "::1"][..] } else { &["127.0.0.1"] };
    for host in hosts {
        for (server, answer) in [(&rot13, "Jnl bhg\nUryyb...\n"), (&echo, "Way out\nHello...\n")] {
            let url = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
            let mut bash = Command::new("bash");
            bash.args(["-c", script]).env("HOST", host).env("PORT", server.port.to_string());
            bash.env("URL", format!("{url}:{}", server.port)).env("TEXT", "Way out\nHello...\n");
            let output = run(&mut bash);
            let got = text(&output.stdout);
            assert_eq!(got, answer, "{client} {host}: {output:?}");
            server.wait_for_children(0);
        }
    }
    Some(echo)
}
