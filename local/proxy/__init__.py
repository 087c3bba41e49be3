"""The embedded cloud's front door: every AWS call of every actor passes here, is counted, and may be made to go wrong.

    python -m local.proxy --port P --emulator http://127.0.0.1:E --fargate http://127.0.0.1:F --certificate PEM

It speaks TLS to the actors and plain HTTP to what is behind it, on the same machine: ECS calls go to the process-backed
Fargate, everything else to the emulator. Requests are passed on as they are, Host header and signature included.

- Who called is told by the application id in the User-Agent (AWS_SDK_UA_APP_ID; the template sets one for each function
  and worker). What AWS itself would do, such as polling a queue for a function or shipping logs, does not pass here.
- `GET /_fleetcap/recording` tells the calls by actor and operation and DynamoDB's units as AWS bills them;
  `DELETE` starts anew.
- `POST /_fleetcap/faults` has calls go wrong: delayed, dropped before they are passed on or after they were carried
  out, or the calling process killed at that very point.

The rooms: `calls` (what a request is), `units` (what it costs), `recording`, `faults` (which call is to go wrong),
`callers` (which process called), and `server` (which passes calls on).
"""
