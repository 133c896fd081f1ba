import itertools
import os
import signal
import sys
import time

words = open("FOLDER/version").read().split()
number, fault = words[0], "".join(words[1:])
time.sleep(DELAY)
if fault == "crash":
    sys.exit("this version crashes at its start")
if fault == "never":
    time.sleep(3600)
if fault == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def events(last):
    for number in itertools.count(last + 1):
        yield b"id: %d\ndata: event\n\n" % number
        time.sleep(0.1)


def app(environ, start_response):
    path = environ["PATH_INFO"]
    headers = [("X-Pid", str(os.getpid())), ("X-Generation", number)]
    if path == "/events":
        start_response("200 OK", headers + [("Content-Type", "text/event-stream")])
        return events(int(environ.get("HTTP_LAST_EVENT_ID", "0")))
    body = b"hello\n"
    if path == "/echo":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    elif path == "/slow":
        time.sleep(0.5)
    start_response("200 OK", headers + [("Content-Length", str(len(body)))])
    return [body]
