"""A server on the socket that it is given, with a port of its own beside it: beside.py PORT [FILE], without it where the
file is there. It ends well."""
import http.server
import os
import signal
import socket
import sys
import threading

BODY = b"generation %s\n" % os.environ["GRACE_GENERATION"].encode()


class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        self.wfile.write(BODY)

    def log_message(self, *args):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = False


held = Server(("", 0), Answer, bind_and_activate=False)
held.socket = socket.socket(fileno=3)
held.socket.setblocking(False)  # another generation may have taken who was there
servers = [held]
if len(sys.argv) < 3 or not os.path.exists(sys.argv[2]):
    servers.append(Server(("127.0.0.1", int(sys.argv[1])), Answer))
threads = [threading.Thread(target=s.serve_forever, args=(0.02,)) for s in servers]
ending = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ending.set())
for thread in threads:
    thread.start()
while not ending.wait(0.05):
    pass
for server in servers:
    server.shutdown()
    server.server_close()
