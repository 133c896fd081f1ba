"""A server that answers one request after another at descriptor 3, and with TERM closes its listener and ends at once, with what it has begun
answered."""
import signal
import socket

server = socket.socket(fileno=3)
server.setblocking(True)
signal.signal(signal.SIGTERM, lambda *_: server.close())
while True:
    try:
        client, _ = server.accept()
    except OSError:
        break
    client.recv(4096)
    client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\ndone\n")
    client.close()
