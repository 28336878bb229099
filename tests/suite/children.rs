//! One child per connection: whose it is, what it holds and how it ends.

use crate::common::*;
use std::collections::BTreeSet;
use std::net::TcpStream;

#[test]
fn every_connection_has_its_own_child_of_the_server() {
    let server = Server::start(&["echo", "0"]);
    let clients: Vec<_> = (0..5).map(|_| server.connect()).collect();
    let ports: BTreeSet<u16> = clients.iter().map(local_port).collect();
    let children = server.wait_for_children(5);
    wait_for("each child holds one connection and no listening socket", || {
        let served = children.iter().filter_map(|&child| match tcp_sockets(child)[..] {
            [Tcp { listens: false, peer, .. }] => Some(peer),
            _ => None,
        });
        served.collect::<BTreeSet<u16>>() == ports
    });
    wait_for("the server holds its listening socket and no connection", || {
        matches!(tcp_sockets(server.pid)[..], [Tcp { listens: true, .. }])
    });
}

#[test]
fn a_child_ends_with_its_own_connection() {
    let server = Server::start(&["rot13", "0"]);
    let clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    server.wait_for_children(3);
    for client in clients {
        let child = child_of(&server, &client);
        let others: Vec<_> = server.children().into_iter().filter(|&pid| pid != child).collect();
        drop(client);
        wait_for("its child is gone", || stat(child).is_none());
        assert_eq!(server.children(), others);
    }
}

/// One SIGCHLD may stand for many: signals do not queue.
#[test]
fn children_that_end_together_are_all_reaped() {
    let server = Server::start(&["echo", "0"]);
    for _ in 0..5 {
        drop(two_hundred(&server));
        server.wait_for_children(0);

        let clients = two_hundred(&server);
        server.children().into_iter().for_each(|child| kill(child as i32, libc::SIGKILL));
        server.wait_for_children(0);
        drop(clients);

        let clients = two_hundred(&server);
        stop(server.pid);
        let children = server.children();
        drop(clients);
        wait_for("200 zombies", || children.iter().all(|&child| state(child) == 'Z'));
        server.signal(libc::SIGCONT);
        server.wait_for_children(0);
    }
    assert_eq!(say(&server.connect(), LINE), LINE);
}

fn two_hundred(server: &Server) -> Vec<TcpStream> {
    let clients = (0..200).map(|_| server.connect()).collect();
    server.wait_for_children(200);
    clients
}

fn child_of(server: &Server, client: &TcpStream) -> u32 {
    let port = local_port(client);
    let mut found = None;
    wait_for("a child holds the connection", || {
        let mut children = server.children().into_iter();
        found = children.find(|&child| tcp_sockets(child).iter().any(|tcp| tcp.peer == port));
        found.is_some()
    });
    found.unwrap()
}

fn local_port(stream: &TcpStream) -> u16 {
    stream.local_addr().expect("local address").port()
}
