"""A server that answers one request after another, and dies of TERM at once. blunt.py PORT, PATH or fd: the socket that it
is given. The answer to a request for a file comes when there is one. With a file as second argument it begins to accept when
there is that one, and makes opened.N before, N being its instance."""
import os
import socket
import sys
import time

at = sys.argv[1]
if at == "fd":
    server = socket.socket(fileno=3)
elif at.isdigit():
    server = socket.create_server(("127.0.0.1", int(at)))
else:
    server = socket.socket(socket.AF_UNIX)
    server.bind(at)
    server.listen()
server.setblocking(True)
if len(sys.argv) > 2:
    open("opened." + os.environ["GRACE_INSTANCE"], "w").close()
    while not os.path.exists(sys.argv[2]):
        time.sleep(0.01)
while True:
    client, _ = server.accept()
    request = client.recv(4096)
    if not request:
        client.close()
        continue
    wanted = request.split()[1].decode()
    while wanted != "/" and not os.path.exists(wanted):
        time.sleep(0.01)
    client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\ndone\n")
    client.close()
