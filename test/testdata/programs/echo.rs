//! A thread for each connection, with the standard library alone.
use std::net::{TcpListener, TcpStream};
use std::{env, io, thread};

fn echo(mut connection: TcpStream) -> io::Result<u64> {
    let mut reader = connection.try_clone()?;
    io::copy(&mut reader, &mut connection)
}

fn main() -> io::Result<()> {
    let port = env::args().nth(1).expect("no port").parse::<u16>().expect("no number");
    for connection in TcpListener::bind(("127.0.0.1", port))?.incoming() {
        let connection = connection?;
        thread::spawn(move || echo(connection));
    }
    Ok(())
}
