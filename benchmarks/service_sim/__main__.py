"""`python -m service_sim`: settings as one JSON line on stdin, `{"port": ...}` on stdout; ends when stdin does.

The line holds `models` (served name to Hugging Face folder), `storage`, `api_key`, and under `service` the fields of
`compute.Service`. The bill is `bill.jsonl` in the storage folder.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from datetime import datetime
from pathlib import Path

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from charrun.engine import server
from charrun.engine.settings import EngineSettings


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def main() -> None:
    """Serve until stdin ends."""
    line = json.loads(sys.stdin.readline())
    storage = Path(line["storage"])
    storage.mkdir(parents=True, exist_ok=True)
    models = {name: Path(folder) for name, folder in line["models"].items()}
    settings = EngineSettings(models=models, storage=storage, api_key=line["api_key"], device="cpu", session_seconds=60)

    def opened(settings: EngineSettings) -> object:
        from charrun.engine.app import open_desk
        from service_sim.compute import Service, SimTraining, SimWorker
        from service_sim.jobs import JobLog
        from service_sim.meter import Meter

        def note(session: str) -> dict[str, str]:
            return next((dict(each.user_metadata) for each in desk.sessions.all() if each.id == session), {})

        SimTraining.names = {folder.resolve(): name for name, folder in models.items()}
        service = Service(**line.get("service", {}))
        meter = SimTraining.meter = Meter(storage / "bill.jsonl", note, service.prices)

        async def events(request: Request) -> JSONResponse:
            start, end = (_seconds(request.query_params[name]) for name in ("starting_on", "ending_before"))
            return JSONResponse(meter.events(start, end))

        log = JobLog(storage / "jobs.jsonl", note)
        worker = SimTraining.worker = SimWorker(settings, service, meter, log)
        desk = open_desk(settings, worker, SimTraining, (Route("/api/v1/billing/usage/events", events),))

        def lose(request_id: str) -> None:
            ticket = desk.office.get(request_id)
            if ticket is not None:  # right after its result was handed to the loop
                ticket.loop.call_soon_threadsafe(desk.office._drop, ticket)

        worker.lose = lose
        return desk

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    listener = server.bind("127.0.0.1", line.get("port", 0))
    port = listener.getsockname()[1]
    server.run(settings, listener, lambda: print(json.dumps({"port": port}), flush=True), opened=opened)


if __name__ == "__main__":
    main()
