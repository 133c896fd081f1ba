"""An HTTP server that leaves out listen where its socket listens already, as haproxy does."""
import socket
import sys

at = sys.argv[1]
if at.startswith("/"):
    server = socket.socket(socket.AF_UNIX)
    server.bind(at)
else:
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind(("127.0.0.1", int(at)))
if not server.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
    server.listen(64)
while True:
    client, _ = server.accept()
    client.recv(4096)
    client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    client.close()
