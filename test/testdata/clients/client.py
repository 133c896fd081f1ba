# Four clients that keep their connections. Each line of output is an answer or a failure.
import http.client
import sys
import threading
import time


def ask():
    connection = http.client.HTTPConnection(sys.argv[1])
    while True:
        try:
            connection.request("POST", "/echo", b"hello")
            answer = connection.getresponse()
            said = "answered\n" if answer.read() == b"hello" else f"failed: {answer.status}\n"
        except Exception as error:
            connection.close()
            said = f"failed: {error!r}\n"
        sys.stdout.write(said)
        sys.stdout.flush()
        time.sleep(0.005)


for _ in range(4):
    threading.Thread(target=ask).start()
