//! The peer with tokio: a task for each connection.
//! Usage: tokioecho PORT

use std::env;
use std::io::Result;
use std::net::Ipv6Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

async fn echo(mut stream: TcpStream) -> Result<()> {
    let mut bytes = vec![0; 32 * 1024];
    loop {
        let n = stream.read(&mut bytes).await?;
        if n == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..n]).await?;
    }
}

fn main() -> Result<()> {
    let port = env::args().nth(1).and_then(|port| port.parse().ok()).expect("a port");
    Runtime::new()?.block_on(async {
        let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            tokio::spawn(echo(stream));
        }
    })
}
