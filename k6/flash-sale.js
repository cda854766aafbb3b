// A flash sale: many users ask for few coupons, at a rate that does not wait for the answers.
//
//   k6 run k6/flash-sale.js
//   TARGETS=http://127.0.0.1:8080,http://127.0.0.1:8081 CAMPAIGN=spring RATE=5000 k6 run k6/flash-sale.js
//
// Environment:
//   TARGETS       gateways, base URLs separated by commas        http://127.0.0.1:8080
//   CAMPAIGN      the campaign asked for                         welcome
//   USERS         how many different users there are             5000
//   REQUESTS      how many requests they send in all             20000
//   RATE          requests a second                              2000
//   REPEAT_SHARE  share of requests, 0 to below 1, that are sent by somebody who has asked before, half of them by the
//                 one who asked last (a double click)            0.2
//   SUMMARY       where to write the summary, JSON               nowhere
//   SEEN          1: log `seen USER CODE` for each coupon that a user was told of, for an audit of what was promised:
//                   SEEN=1 k6 run --log-format raw k6/flash-sale.js 2>&1 | sed -n 's/^seen //p' > seen.txt
//                   doorbuster-backend audit welcome --seen seen.txt
//
// The model is open: requests start at RATE whatever happens to those before, as a crowd does. A closed model, in which
// a user waits for one answer before the next request, would slow down with the gateway and flatter it.
//
// The other requests walk through the users in order, and begin again with the first, so everybody asks as soon as
// REQUESTS x (1 - REPEAT_SHARE) reaches USERS. User ids carry the start time: each run is a new crowd.
//
// The summary:
//   {
//     "requests": 20000,                  sent
//     "users": 5000,                      different ones that asked
//     "dropped": 0,                       not sent in time, because this machine could not keep up; made up for at the end
//     "outcomes": {                       every answer, by what it says; what never happened is left out
//       "issued": 100, "pending": 0, "sold_out": 19120, "already_issued": 90, "busy": 690
//     },
//     "unexpected": 0,                    answers, or failures to answer, that the contract does not know
//     "wins_ms": {"p50": 7.1, "p95": 19.4, "p99": 24.8},         null where there were none
//     "refusals_ms": {"p50": 0.8, "p95": 2.9, "p99": 6.2}
//   }
//
// `issued` may exceed the quota by a few: who asks again while the first request is being committed hears of the same
// coupon. How many there are, the database knows.
//
// It exits 99 if an answer was not as the contract has it. Slow answers are no failure here: how fast is fast enough
// depends on the machine, and is judged by whoever reads the summary.

import { check } from 'k6';
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter, Trend } from 'k6/metrics';

const TARGETS = (__ENV.TARGETS || 'http://127.0.0.1:8080').split(',').map((url) => url.trim().replace(/\/+$/, ''));
const CAMPAIGN = __ENV.CAMPAIGN || 'welcome';
const USERS = number('USERS', 5000, 1);
const REQUESTS = number('REQUESTS', 20000, 1);
const RATE = number('RATE', 2000, 1);
const REPEAT_SHARE = number('REPEAT_SHARE', 0.2, 0);
const SUMMARY = __ENV.SUMMARY;
const SEEN = __ENV.SEEN === '1';

if (REPEAT_SHARE >= 1) {
  throw new Error(`REPEAT_SHARE=${REPEAT_SHARE}: somebody must ask first; use less than 1`);
}

// What a well-formed request can hear, and with which status.
const REFUSALS = {
  sold_out: 409,
  already_issued: 409,
  busy: 503,
  unavailable: 503,
  not_started: 403,
  outside_hours: 403,
  paused: 403,
  ended: 410,
};
const OUTCOMES = ['issued', 'pending'].concat(Object.keys(REFUSALS));

const outcomes = new Counter('outcomes');
const unexpected = new Counter('unexpected');
const wins = new Trend('wins', true);
const refusals = new Trend('refusals', true);

http.setResponseCallback(http.expectedStatuses(201, 202, ...new Set(Object.values(REFUSALS))));

// k6 shows a metric's tags in the summary only where a threshold names them; this one always holds.
const counted = Object.fromEntries(OUTCOMES.map((outcome) => [`outcomes{outcome:${outcome}}`, ['count>=0']]));

export const options = {
  scenarios: {
    crowd: {
      executor: 'constant-arrival-rate',
      rate: RATE,
      timeUnit: '1s',
      // Two seconds more than needed, to make up for arrivals that were dropped; what is above REQUESTS is not sent.
      duration: `${Math.ceil(REQUESTS / RATE) + 2}s`,
      gracefulStop: '15s',
      // One virtual user for each request under way: enough for answers that take 0.1 s, and up to 2 s.
      preAllocatedVUs: Math.max(10, Math.ceil(RATE / 10)),
      maxVUs: Math.max(100, RATE * 2),
    },
  },
  summaryTrendStats: ['p(50)', 'p(95)', 'p(99)'],
  thresholds: Object.assign({ unexpected: ['count==0'], checks: ['rate==1'] }, counted),
};

export function setup() {
  return { crowd: Date.now().toString(36) };
}

export default function ask({ crowd }) {
  const nth = exec.scenario.iterationInTest;
  if (nth >= REQUESTS) {
    return;
  }
  const target = TARGETS[nth % TARGETS.length];
  const user = `${crowd}-${userOf(nth)}`;
  const response = http.post(`${target}/v1/coupon/issue?campaign=${encodeURIComponent(CAMPAIGN)}`, null, {
    headers: { 'x-user-id': user },
    // One series for all of them, whatever the target.
    tags: { name: 'issue' },
    timeout: '10s',
  });
  const outcome = outcomeOf(response);
  if (outcome === null) {
    unexpected.add(1);
    complain(response);
    return;
  }
  outcomes.add(1, { outcome });
  if (outcome === 'issued') {
    wins.add(response.timings.duration);
    if (SEEN) {
      console.log(`seen ${user} ${response.json('coupon.code')}`);
    }
  } else if (outcome !== 'pending') {
    refusals.add(response.timings.duration);
    check(response, {
      'a refusal is a problem document': (it) => it.headers['Content-Type'] === 'application/problem+json',
      'ask again says when': (it) => it.status !== 503 || /^[1-3]$/.test(it.headers['Retry-After'] || ''),
      'our own headers stay inside': (it) => !Object.keys(it.headers).some((name) => /^x-doorbuster-/i.test(name)),
    });
  }
}

// How many of the first `count` requests walk on to the next user; the others repeat. Virtual users share no memory,
// so everything follows from the request's number.
function walked(count) {
  return Math.ceil(count * (1 - REPEAT_SHARE));
}

function userOf(nth) {
  const steps = walked(nth);
  if (steps === 0 || walked(nth + 1) > steps) {
    return steps % USERS;
  }
  const doubleClick = Math.random() < 0.5;
  return doubleClick ? (steps - 1) % USERS : Math.floor(Math.random() * Math.min(steps, USERS));
}

// The outcome an answer stands for, or null if the contract does not know it.
function outcomeOf(response) {
  let body;
  try {
    body = response.json();
  } catch {
    return null;
  }
  if (body === null || typeof body !== 'object') {
    return null;
  }
  switch (response.status) {
    case 201:
      return body.coupon && body.coupon.code && body.coupon.campaign === CAMPAIGN ? 'issued' : null;
    case 202:
      return body.status === 'pending' && response.headers.Location === `/v1/coupons/${body.code}` ? 'pending' : null;
    default:
      return REFUSALS[body.code] === response.status && body.status === response.status ? body.code : null;
  }
}

// One line from each virtual user is enough to see what went wrong.
let complained = false;

function complain(response) {
  if (!complained) {
    complained = true;
    console.error(`unexpected: ${response.status} ${response.error} ${String(response.body).slice(0, 300)}`);
  }
}

export function handleSummary({ metrics }) {
  const count = (name) => (metrics[name] ? metrics[name].values.count : 0);
  const percentiles = (name) => {
    const values = metrics[name] ? metrics[name].values : {};
    const of = (p) => (values[`p(${p})`] === undefined ? null : values[`p(${p})`]);
    return { p50: of(50), p95: of(95), p99: of(99) };
  };
  const happened = OUTCOMES.map((outcome) => [outcome, count(`outcomes{outcome:${outcome}}`)]);
  const requests = count('http_reqs');
  const summary = {
    requests,
    users: Math.min(USERS, walked(requests)),
    dropped: count('dropped_iterations'),
    outcomes: Object.fromEntries(happened.filter(([, times]) => times > 0)),
    unexpected: count('unexpected'),
    wins_ms: percentiles('wins'),
    refusals_ms: percentiles('refusals'),
  };
  const text = JSON.stringify(summary, null, 2) + '\n';
  return SUMMARY ? { stdout: text, [SUMMARY]: text } : { stdout: text };
}

function number(name, otherwise, least) {
  const value = __ENV[name] === undefined || __ENV[name] === '' ? otherwise : Number(__ENV[name]);
  if (!(value >= least)) {
    throw new Error(`${name}=${__ENV[name]}: not a number of at least ${least}`);
  }
  return value;
}
