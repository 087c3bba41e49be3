"""Chaos: many small jobs through the real template, deciders, queue, table and processes while things go wrong.

    python -m local.chaos --minutes 10 --jobs 1000 --cap 8 --seed 7

A storm lasts for its minutes, and on until its jobs are sent and each kind of fault has struck. Then it is calm, the
fleet has to settle by itself, and the verdict is spoken over what is found. A seed stands for one order of messages and
faults; when they come depends on the machine.

What strikes, all of it many times, is told in `plan`: workers killed, hung and interrupted; launches
throttled, unanswered, failed; stop events dropped, doubled and late; calls of AWS lost before and after they were
carried out, and late; deciders and workers killed in the middle of a call. Meanwhile the cap is set down and up again
in each minute, as a person would. The jobs are of several tenants; some wait for others, and some are arrays, one of
them of two levels where the storm is long.

Two things take longer to heal than a short storm lasts, so only storms from `plan.LONG_FROM_S` on bring more than one:

- A stop event that never arrives, or whose decider dies over it, leaves a slot to be found by its silence:
  `SILENT_S` (120 s), and twice that where two or more are silent and nobody beats any more, as the tick then suspects
  the table first. A short storm drops one event, in its first minute. The same holds for a worker that hangs for good.
- A message whose decider dies comes again after `QUEUE_VISIBILITY_S` (360 s). In a short storm intake dies at its
  leases and at RunTask, which come after every message of its batch was put as a job: then only the message comes
  again, and finds its job done. A long storm kills it at any write, and waits for every such message.

Nothing is sent again to hide a loss: whatever the fleet was told once it must do by itself.

The rooms: `plan` (what is sent and what goes wrong, under a seed), `storm` (carries the plan out and waits), `listener`
(hears the deployment's events), `evidence` (what is found afterwards), `verdict` (what of it must not be: pure),
`report` (what a person sees).
"""
