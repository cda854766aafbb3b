"""An origin for Doorbuster: as many gifts a day as the file says, one for each user, kept in memory only.

    python3 origin.py PORT QUOTA_FILE

It decides exactly, whatever the gateway lets through. One response header tells the gateway what it decided.
"""
import sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

given, lock = {}, threading.Lock()  # By day: the users who have theirs.


class Origin(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"] or 0))
        day, user = self.headers["x-doorbuster-round"], self.headers["x-user-id"]
        if day is None:  # Within a quarter of a second of midnight the gateway may not know, nor does this origin.
            return self.send_error(503)
        with lock:
            users, quota = given.setdefault(day, set()), int(open(sys.argv[2]).read())
            outcome = "already_issued" if user in users else "sold_out" if len(users) >= quota else "issued"
            if outcome == "issued":
                users.add(user)
            result = f'outcome={outcome}, campaign="gift", round="{day}", issued={len(users)}, quota={quota}'
        self.send_response(201 if outcome == "issued" else 409)
        self.send_header("x-doorbuster-result", result)
        self.end_headers()
        self.wfile.write(outcome.encode())


ThreadingHTTPServer.request_queue_size = 128  # It may be asked by as many at once as there are gifts left.
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Origin).serve_forever()
