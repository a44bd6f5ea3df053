"""
What the Redis broker has the server do in one step, and the names of its keys.

A queue has a stream for each priority in use (a lane), and a sorted set that names the
lanes. A lane is in the set as long as its stream exists: both are made and deleted by the
same scripts. All keys of a queue have one hash tag, so a Cluster keeps them together.

Claimed entries are the pending entries of their owner, a consumer of the group. What is given
back is moved to the consumer ``POOL``, keeps its place that way, and is claimed before anything
new. A delivery counter of 0 says of a pooled entry that nobody may have begun to run it.
"""

from __future__ import annotations

import hashlib
from typing import Any

from redis.exceptions import NoScriptError

from .redis_connection import Link

GROUP = b"workers"
POOL = b"-"

# The fields of an entry: the message, what tells one attempt to publish from another, and where
# the message is from, unless that is its sender.
BODY = b"b"
TOKEN = b"t"
ORIGIN = b"o"

_PRELUDE = """
local GROUP, POOL = 'workers', '-'

local function ids_of(stream, owner, count)
  local found = redis.pcall('XPENDING', stream, GROUP, '-', '+', count, owner)
  local ids = {}
  if not found.err then
    for i, entry in ipairs(found) do ids[i] = entry[1] end
  end
  return ids
end

-- Of the ids in ARGV from *first* on, those that *owner* holds still.
local function held(stream, owner, first)
  local ids = {}
  for i = first, #ARGV do
    local found = redis.pcall('XPENDING', stream, GROUP, ARGV[i], ARGV[i], 1, owner)
    if found.err then return {} end
    if #found > 0 then ids[#ids + 1] = ARGV[i] end
  end
  return ids
end

local function erase(stream, ids)
  if #ids == 0 then return end
  redis.call('XACK', stream, GROUP, unpack(ids))
  redis.call('XDEL', stream, unpack(ids))
end

local function move(stream, owner, idle, ids, ...)
  if #ids == 0 then return {} end
  local command = {'XCLAIM', stream, GROUP, owner, idle}
  for _, id in ipairs(ids) do command[#command + 1] = id end
  for _, option in ipairs({...}) do command[#command + 1] = option end
  return redis.call(unpack(command))
end
"""


class Script:
    """A Lua script; the server is sent its text only if it does not know it."""

    def __init__(self, text: str) -> None:
        self._text = _PRELUDE + text
        self._hash = hashlib.sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    def command(self, keys: tuple[bytes, ...], *arguments: Any) -> tuple[Any, ...]:
        """Return the command that runs the script, for a batch of commands."""
        return ("EVALSHA", self._hash, len(keys), *keys, *arguments)

    def run(self, link: Link, keys: tuple[bytes, ...], *arguments: Any) -> Any:
        """Run the script on the server at the other end of *link*."""
        try:
            return link.call(*self.command(keys, *arguments))
        except NoScriptError:
            return link.call("EVAL", self._text, len(keys), *keys, *arguments)


# Lanes of all queues, the most urgent first; of equal ones those of the queue named first.
# At most 1,000 lanes of a queue are looked at: nobody has as many priorities, and a script
# must come to its end.
_LANES = """
local function lanes_below(below)
  local lanes = {}
  for i, key in ipairs(KEYS) do
    for _, priority in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', below, 'LIMIT', 0, 1000)) do
      lanes[#lanes + 1] = {tonumber(priority), i, priority, string.sub(key, 1, -2)..':'..priority}
    end
  end
  table.sort(lanes, function(a, b)
    if a[1] ~= b[1] then return a[1] < b[1] end
    return a[2] < b[2]
  end)
  return lanes
end
"""

# KEYS: the sets of lanes. ARGV: owner, how many, below which priority.
# Returns what was claimed, as {queue, priority, {id, redelivered + 2 * origin, body, ...}}; and
# the lanes there are, as {queue, priority, ...}, if that was nothing.
CLAIM = Script(
    _LANES
    + """
local owner, left = ARGV[1], tonumber(ARGV[2])

local function add(entries, entry, redelivered)
  -- Claimed entries that are not in the stream any more come as false, or not at all.
  if not entry then return end
  local size, fields = #entries, entry[2] or {}
  entries[size + 1] = entry[1]
  entries[size + 2] = fields[6] and redelivered + 2 * tonumber(fields[6]) or redelivered
  entries[size + 3] = fields[2] or ''
  left = left - 1
end

local function claim_pooled(stream, entries)
  local found = redis.pcall('XPENDING', stream, GROUP, '-', '+', left, POOL)
  if found.err then
    redis.pcall('XGROUP', 'CREATE', stream, GROUP, '0', 'MKSTREAM')
    return
  end
  local ids, delivered = {}, {}
  for i, entry in ipairs(found) do
    ids[i], delivered[entry[1]] = entry[1], entry[4]
  end
  local claimed = move(stream, owner, 0, ids, 'RETRYCOUNT', 1)
  local there = {}
  for i = 1, #ids do
    local entry = claimed[i]
    if entry then
      there[entry[1]] = true
      add(entries, entry, delivered[entry[1]] > 0 and 1 or 0)
    end
  end
  for _, id in ipairs(ids) do
    if not there[id] then redis.call('XACK', stream, GROUP, id) end
  end
end

local function claim_new(stream, entries)
  local found = redis.pcall(
    'XREADGROUP', 'GROUP', GROUP, owner, 'COUNT', left, 'STREAMS', stream, '>')
  if not found or found.err then return end
  for _, entry in ipairs(found[1][2]) do add(entries, entry, 0) end
end

local claimed, lanes = {}, lanes_below(ARGV[3])
for _, lane in ipairs(lanes) do
  if left <= 0 then break end
  local entries = {}
  claim_pooled(lane[4], entries)
  if left > 0 then claim_new(lane[4], entries) end
  if #entries > 0 then claimed[#claimed + 1] = {lane[2], lane[3], entries} end
end
local waits = {}
if #claimed == 0 then
  for _, lane in ipairs(lanes) do
    waits[#waits + 1] = lane[2]
    waits[#waits + 1] = lane[3]
  end
end
return {claimed, waits}
"""
)

# KEYS: the sets of lanes. ARGV: below which priority. Returns the most urgent one that is ready.
PEEK = Script(
    _LANES
    + """
for _, lane in ipairs(lanes_below(ARGV[1])) do
  local summary = redis.pcall('XPENDING', lane[4], GROUP)
  if not summary.err then
    local ready = redis.call('XLEN', lane[4]) - summary[1]
    for _, consumer in ipairs(summary[4] or {}) do
      if consumer[1] == POOL then ready = ready + tonumber(consumer[2]) end
    end
    if ready > 0 then return lane[3] end
  end
end
return false
"""
)

# KEYS: the set of lanes, a lane. ARGV: priority, bell.
OPEN_LANE = Script(
    """
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[1])
local made = redis.pcall('XGROUP', 'CREATE', KEYS[2], GROUP, '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
return redis.call('PUBLISH', ARGV[2], '1')
"""
)

# KEYS: a lane. ARGV: milliseconds, tokens. Returns those of the tokens that were added to the
# lane in the last milliseconds, and are there still; 2,000 entries are looked at.
FIND_TOKENS = Script(
    """
local wanted, found, time = {}, {}, redis.call('TIME')
for i = 2, #ARGV do wanted[ARGV[i]] = true end
local since = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1])
local last = '+'
for page = 1, 200 do
  local entries = redis.call('XREVRANGE', KEYS[1], last, since, 'COUNT', 10)
  for _, entry in ipairs(entries) do
    local token = entry[2][4]
    if token and wanted[token] then found[#found + 1] = token end
  end
  if #entries < 10 then break end
  last = '('..entries[#entries][1]
end
return found
"""
)

# KEYS: a lane. ARGV: owner, ids.
ACK = Script(
    """
local ids = held(KEYS[1], ARGV[1], 2)
erase(KEYS[1], ids)
return #ids
"""
)

# KEYS: a lane. ARGV: owner, bell, delivery counter, ids.
PUT_BACK = Script(
    """
local ids = held(KEYS[1], ARGV[1], 4)
move(KEYS[1], POOL, 0, ids, 'RETRYCOUNT', ARGV[3], 'JUSTID')
if #ids > 0 then redis.call('PUBLISH', ARGV[2], '1') end
return #ids
"""
)

# KEYS: a lane. ARGV: owner, bell, ids the owner knows of. Keeps these claims alive; others went
# to a connection that is no more, and are given back.
RENEW = Script(
    """
local known, mine, strays = {}, {}, {}
for i = 3, #ARGV do known[ARGV[i]] = true end
for _, id in ipairs(ids_of(KEYS[1], ARGV[1], 7000)) do
  local target = known[id] and mine or strays
  target[#target + 1] = id
end
move(KEYS[1], ARGV[1], 0, mine, 'JUSTID')
move(KEYS[1], POOL, 0, strays, 'JUSTID')
if #strays > 0 then redis.call('PUBLISH', ARGV[2], '1') end
return #strays
"""
)

# KEYS: a lane. ARGV: owner, bell, ids that are done. Returns how many claims it dealt with;
# if that is 1,000 there may be more.
RELEASE = Script(
    """
local done, finished, given = {}, {}, {}
for i = 3, #ARGV do done[ARGV[i]] = true end
local ids = ids_of(KEYS[1], ARGV[1], 1000)
for _, id in ipairs(ids) do
  local target = done[id] and finished or given
  target[#target + 1] = id
end
erase(KEYS[1], finished)
move(KEYS[1], POOL, 0, given, 'RETRYCOUNT', 1, 'JUSTID')
if #ids < 1000 then redis.pcall('XGROUP', 'DELCONSUMER', KEYS[1], GROUP, ARGV[1]) end
if #given > 0 then redis.call('PUBLISH', ARGV[2], '1') end
return #ids
"""
)

# KEYS: a lane. ARGV: bell, idle milliseconds, where to begin. Gives back claims that nobody
# has renewed for so long; returns how many, and where to go on if there may be more.
SWEEP = Script(
    """
local found = redis.pcall('XPENDING', KEYS[1], GROUP, 'IDLE', ARGV[2], ARGV[3], '+', 200)
if found.err then return {0, ''} end
local ids = {}
for _, entry in ipairs(found) do
  if entry[2] ~= POOL then ids[#ids + 1] = entry[1] end
end
move(KEYS[1], POOL, ARGV[2], ids, 'JUSTID')
if #ids > 0 then redis.call('PUBLISH', ARGV[1], '1') end
return {#ids, #found == 200 and '('..found[200][1] or ''}
"""
)

# KEYS: the set of lanes, a lane. ARGV: priority, milliseconds. Deletes consumers without claims
# that were not seen for so long, and the lane if it is empty and got nothing for so long.
TIDY = Script(
    """
local stream, patience = KEYS[2], tonumber(ARGV[2])
local summary = redis.pcall('XPENDING', stream, GROUP)
if summary.err then
  if redis.call('EXISTS', stream) == 0 then redis.call('ZREM', KEYS[1], ARGV[1]) end
  return 0
end
for _, facts in ipairs(redis.call('XINFO', 'CONSUMERS', stream, GROUP)) do
  local consumer = {}
  for i = 1, #facts, 2 do consumer[facts[i]] = facts[i + 1] end
  if consumer.pending == 0 and consumer.idle > patience then
    redis.call('XGROUP', 'DELCONSUMER', stream, GROUP, consumer.name)
  end
end
if summary[1] > 0 or redis.call('XLEN', stream) > 0 then return 0 end
local facts, time = redis.call('XINFO', 'STREAM', stream), redis.call('TIME')
for i = 1, #facts, 2 do
  if facts[i] == 'last-generated-id' then
    local last = tonumber(string.match(facts[i + 1], '^%d+'))
    if time[1] * 1000 - last < patience then return 0 end
  end
end
redis.call('DEL', stream)
redis.call('ZREM', KEYS[1], ARGV[1])
return 1
"""
)

# KEYS: a set of lanes. Returns how many messages are ready, and how many claimed.
SIZE = Script(
    _LANES
    + """
local ready, claimed = 0, 0
for _, lane in ipairs(lanes_below('+inf')) do
  local summary = redis.pcall('XPENDING', lane[4], GROUP)
  if not summary.err then
    local pending = summary[1]
    for _, consumer in ipairs(summary[4] or {}) do
      if consumer[1] == POOL then pending = pending - tonumber(consumer[2]) end
    end
    claimed = claimed + pending
    ready = ready + redis.call('XLEN', lane[4]) - pending
  end
end
return {math.max(ready, 0), claimed}
"""
)

# KEYS: a set of lanes. Returns when the oldest ready message came, in milliseconds since 1970;
# the id of an entry begins with it.
OLDEST = Script(
    _LANES
    + """
local oldest

local function look_at(id)
  local ms = id and tonumber(string.match(id, '^%d+'))
  if ms and (not oldest or ms < oldest) then oldest = ms end
end

local function last_delivered(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  for _, group in ipairs(groups.err and {} or groups) do
    local told = {}
    for i = 1, #group, 2 do told[group[i]] = group[i + 1] end
    if told['name'] == GROUP then return '('..told['last-delivered-id'] end
  end
  return '-'
end

for _, lane in ipairs(lanes_below('+inf')) do
  look_at(ids_of(lane[4], POOL, 1)[1])
  local found = redis.pcall('XRANGE', lane[4], last_delivered(lane[4]), '+', 'COUNT', 1)
  if not found.err and found[1] then look_at(found[1][1]) end
end
return oldest and string.format('%.0f', oldest)
"""
)

# KEYS: the set of lanes, a lane. ARGV: priority. Drops what is ready, a page at a time;
# returns whether there may be more.
FLUSH = Script(
    """
local stream = KEYS[2]
local summary = redis.pcall('XPENDING', stream, GROUP)
if summary.err or summary[1] == 0 then
  redis.call('DEL', stream)
  redis.call('ZREM', KEYS[1], ARGV[1])
  return 0
end
local ids = ids_of(stream, POOL, 500)
local found = redis.call(
  'XREADGROUP', 'GROUP', GROUP, POOL, 'COUNT', 500, 'NOACK', 'STREAMS', stream, '>')
if found then
  for _, entry in ipairs(found[1][2]) do ids[#ids + 1] = entry[1] end
end
erase(stream, ids)
return #ids
"""
)


class Lane:
    """
    A stream with the ready and claimed messages of one queue and priority.

    Attributes:
        digest: Stands for the lane where its name would be too long.
    """

    __slots__ = ("digest", "key", "priority", "queue_name", "register")

    def __init__(self, register: bytes, queue_name: str, priority: int) -> None:
        self.register = register
        self.queue_name = queue_name
        self.priority = priority
        self.key = register[:-1] + b":%d" % priority
        self.digest = hashlib.blake2s(self.key, digest_size=8).hexdigest()


class Names:
    """The names of all keys in a namespace."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._lanes: dict[tuple[str, int], Lane] = {}
        self.bell = f"{namespace}:bell".encode()
        self.queues = f"{namespace}:queues".encode()

    def register(self, queue_name: str) -> bytes:
        """Return the name of the set of a queue's lanes."""
        return f"{{{self._namespace}:{queue_name}}}:lanes".encode()

    def lane(self, queue_name: str, priority: int) -> Lane:
        """Return a lane; for the same arguments the same one."""
        key = (queue_name, priority)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes.setdefault(key, Lane(self.register(queue_name), *key))
        return lane
