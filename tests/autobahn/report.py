"""Summarizes Autobahn's report: the number of cases by result, each case that is not OK, and whether any failed."""

from __future__ import print_function

import collections
import json
import sys

GOOD = {"OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED"}

with open(sys.argv[1]) as report:
    (cases,) = json.load(report).values()

counts = collections.Counter(case["behavior"] for case in cases.values())
# UNIMPLEMENTED: 216 cases of extensions that the hub does not negotiate.
named = {name: case for name, case in cases.items() if case["behavior"] not in ("OK", "UNIMPLEMENTED")}
failed = {name for name, case in cases.items() if case["behavior"] not in GOOD or case["behaviorClose"] not in GOOD}

for name in sorted(set(named) | failed, key=lambda name: [int(part) for part in name.split(".")]):
    print(name, cases[name]["behavior"], "close:", cases[name]["behaviorClose"])
print(", ".join("%s %d" % count for count in sorted(counts.items())), "of", len(cases))
if failed or not cases:
    sys.exit("%d cases failed" % len(failed))
