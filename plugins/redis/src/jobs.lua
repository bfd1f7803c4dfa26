-- Jobs in Redis. Each script is a step that nobody comes between. What they keep, below the prefix KEYS[1]:
--
--   job:ID                 a hash: the job as it is
--   number                 how many jobs were accepted so far
--   all                    sorted: every job, by its number
--   due:PIPELINE           sorted: queued jobs that have to wait, by the time that they are due
--   ready:PIPELINE         sorted: jobs that may be lent, by their number
--   running                sorted: jobs that are lent, by the time that their leases run out
--   key:PIPELINE           a hash: from idempotency keys to jobs
--   line:PIPELINE:SHARD    sorted: ordered jobs that are not over, by their number
--   turn                   a hash: from PIPELINE:SHARD to the ordered job whose turn it is

local prefix = KEYS[1]
-- How many jobs one step moves at most, so that none keeps the others waiting for long.
local SOME = 1000

local function key(...)
    return prefix .. table.concat({...}, ':')
end

local function now_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local now = now_ms()

local function get(id, ...)
    return redis.call('HMGET', key('job', id), ...)
end

local function set(id, ...)
    redis.call('HSET', key('job', id), 'updated_ms', now, ...)
end

-- Has a queued job wait until it is due, or lent.
local function park(id)
    local pipeline, number, not_before = unpack(get(id, 'pipeline', 'number', 'not_before_ms'))
    if tonumber(not_before) <= now then
        redis.call('ZADD', key('ready', pipeline), number, id)
    else
        redis.call('ZADD', key('due', pipeline), not_before, id)
    end
end

-- Gives the turn to the first in a line.
local function next_turn(place)
    local first = redis.call('ZRANGE', key('line', place), 0, 0)[1]
    if first then
        redis.call('HSET', key('turn'), place, first)
        park(first)
    else
        redis.call('HDEL', key('turn'), place)
    end
end

-- Queues a job that is none of the queue's yet, or no longer.
local function enter(id)
    local pipeline, shard, ordered, number = unpack(get(id, 'pipeline', 'shard', 'ordered', 'number'))
    if ordered ~= '1' then
        return park(id)
    end
    local place = pipeline .. ':' .. (shard or '')
    redis.call('ZADD', key('line', place), number, id)
    if redis.call('HEXISTS', key('turn'), place) == 0 then
        next_turn(place)
    end
end

local function take_out(id, pipeline)
    redis.call('ZREM', key('running'), id)
    redis.call('ZREM', key('ready', pipeline), id)
    redis.call('ZREM', key('due', pipeline), id)
end

-- Takes a job that is over out of the queue, and lets the next in its line have its turn.
local function leave(id)
    local pipeline, shard, ordered = unpack(get(id, 'pipeline', 'shard', 'ordered'))
    take_out(id, pipeline)
    if ordered == '1' then
        local place = pipeline .. ':' .. (shard or '')
        redis.call('ZREM', key('line', place), id)
        if redis.call('HGET', key('turn'), place) == id then
            next_turn(place)
        end
    end
end

-- Takes back what workers have had for too long. When its attempts are used up it is lent once more, to be buried, and
-- after that to nobody.
local function take_back()
    local late = redis.call('ZRANGEBYSCORE', key('running'), '-inf', now, 'LIMIT', 0, SOME)
    for _, id in ipairs(late) do
        local attempt, max_attempts, worker = unpack(get(id, 'attempt', 'max_attempts', 'worker'))
        local message = 'the worker `' .. (worker or '?') .. '` did not come back from attempt ' .. attempt
        local told = cjson.encode({kind = 'timed_out', code = 'lease-ran-out', message = message, retryable = true})
        if tonumber(attempt) <= tonumber(max_attempts) then
            set(id, 'state', 'queued', 'error', told, 'not_before_ms', now)
            redis.call('ZREM', key('running'), id)
            park(id)
        else
            set(id, 'state', 'dead', 'error', told, 'not_before_ms', now)
            leave(id)
        end
    end
end

-- Lets those wait no longer that are due.
local function promote(pipeline)
    local due = redis.call('ZRANGEBYSCORE', key('due', pipeline), '-inf', now, 'LIMIT', 0, SOME)
    for _, id in ipairs(due) do
        redis.call('ZREM', key('due', pipeline), id)
        redis.call('ZADD', key('ready', pipeline), get(id, 'number')[1], id)
    end
end

-- What is shown of a job, in the order in which the plugin reads it.
local SHOWN = {
    'id', 'pipeline', 'version', 'state', 'attempt', 'max_attempts', 'created_ms', 'updated_ms', 'not_before_ms',
    'worker', 'shard', 'idempotency_key', 'result', 'error',
}

local function show(id)
    return get(id, unpack(SHOWN))
end

local step = {}

function step.enqueue(id, pipeline, version, max_attempts, delay_ms, ordered, payload, shard, idempotency_key, asked)
    local keyed = idempotency_key ~= '' and redis.call('HGET', key('key', pipeline), idempotency_key)
    local same = keyed or (redis.call('EXISTS', key('job', id)) == 1 and id)
    if same then
        return {same, 1, get(same, 'asked')[1] or ''}
    end
    local number = redis.call('INCR', key('number'))
    set(id, 'id', id, 'pipeline', pipeline, 'version', version, 'state', 'queued', 'attempt', 0, 'token', 0,
        'max_attempts', max_attempts, 'not_before_ms', now + delay_ms, 'ordered', ordered, 'created_ms', now,
        'number', number, 'payload', payload)
    if shard ~= '' then set(id, 'shard', shard) end
    if asked ~= '' then set(id, 'asked', asked) end
    if idempotency_key ~= '' then
        set(id, 'idempotency_key', idempotency_key)
        redis.call('HSET', key('key', pipeline), idempotency_key, id)
    end
    redis.call('ZADD', key('all'), number, id)
    enter(id)
    return {id, 0, ''}
end

function step.lease(worker, count, visibility_ms, only, ...)
    take_back()
    local found = {}
    for _, pipeline in ipairs({...}) do
        promote(pipeline)
        if only ~= '' then
            local number = redis.call('ZSCORE', key('ready', pipeline), only)
            if number then table.insert(found, {tonumber(number), only}) end
        else
            local ready = redis.call('ZRANGE', key('ready', pipeline), 0, count - 1, 'WITHSCORES')
            for at = 1, #ready, 2 do table.insert(found, {tonumber(ready[at + 1]), ready[at]}) end
        end
    end
    table.sort(found, function(one, other) return one[1] < other[1] end)
    local leased = {}
    for at = 1, math.min(#found, tonumber(count)) do
        local id = found[at][2]
        local pipeline = get(id, 'pipeline')[1]
        local attempt = redis.call('HINCRBY', key('job', id), 'attempt', 1)
        local token = redis.call('HINCRBY', key('job', id), 'token', 1)
        local until_ms = now + visibility_ms
        set(id, 'state', 'running', 'worker', worker, 'lease_until_ms', until_ms)
        redis.call('ZREM', key('ready', pipeline), id)
        redis.call('ZADD', key('running'), until_ms, id)
        local version, max_attempts, payload = unpack(get(id, 'version', 'max_attempts', 'payload'))
        table.insert(leased, {id, token, pipeline, version, attempt, max_attempts, payload})
    end
    return leased
end

local function holds(id, token)
    local state, last = unpack(get(id, 'state', 'token'))
    return state == 'running' and last == token
end

function step.extend(id, token, visibility_ms)
    local until_ms = redis.call('ZSCORE', key('running'), id)
    if not holds(id, token) or tonumber(until_ms) <= now then
        return 0
    end
    set(id, 'lease_until_ms', now + visibility_ms)
    redis.call('ZADD', key('running'), now + visibility_ms, id)
    return 1
end

function step.conclude(id, token, state, attempts, delay_ms, result, error)
    if not holds(id, token) then
        return 0
    end
    set(id, 'state', state, 'not_before_ms', now + delay_ms)
    redis.call('HINCRBY', key('job', id), 'attempt', attempts)
    if result ~= '' then set(id, 'result', result) end
    if error ~= '' then set(id, 'error', error) end
    if state == 'queued' then
        redis.call('ZREM', key('running'), id)
        park(id)
    else
        leave(id)
        -- Nobody runs it again.
        if state == 'succeeded' then redis.call('HDEL', key('job', id), 'payload') end
    end
    return 1
end

function step.job(id)
    take_back()
    return redis.call('EXISTS', key('job', id)) == 1 and {show(id)} or {}
end

-- Goes through all jobs from a number downwards, some at a time: where it stopped, and what `visit` said.
local function through(from, pipeline, states, unchanged_since_ms, visit)
    local wanted = {}
    for state in string.gmatch(states, '%S+') do wanted[state] = true end
    local visited = redis.call('ZREVRANGEBYSCORE', key('all'), from, '-inf', 'WITHSCORES', 'LIMIT', 0, SOME)
    local said, last = {}, ''
    for at = 1, #visited, 2 do
        local id = visited[at]
        last = '(' .. visited[at + 1]
        local its_pipeline, state, updated = unpack(get(id, 'pipeline', 'state', 'updated_ms'))
        if (pipeline == '' or pipeline == its_pipeline) and (states == '' or wanted[state])
            and (unchanged_since_ms == '' or tonumber(updated) < tonumber(unchanged_since_ms)) then
            table.insert(said, visit(id, its_pipeline))
        end
    end
    return {last, said}
end

function step.jobs(from, pipeline, states, unchanged_since_ms)
    take_back()
    return through(from, pipeline, states, unchanged_since_ms, show)
end

function step.purge(from, pipeline, states, unchanged_since_ms)
    take_back()
    return through(from, pipeline, states, unchanged_since_ms, function(id, its_pipeline)
        local idempotency_key = get(id, 'idempotency_key')[1]
        if idempotency_key then redis.call('HDEL', key('key', its_pipeline), idempotency_key) end
        redis.call('ZREM', key('all'), id)
        redis.call('DEL', key('job', id))
        return id
    end)
end

function step.retry(id)
    set(id, 'state', 'queued', 'attempt', 0, 'not_before_ms', now)
    enter(id)
end

function step.cancel(id)
    redis.call('HINCRBY', key('job', id), 'token', 1)
    set(id, 'state', 'cancelled')
    leave(id)
end

-- What is done by hand: to a job that is in one of these states.
function step.act(id, action, states)
    take_back()
    if redis.call('EXISTS', key('job', id)) == 0 then
        return {'none'}
    end
    for state in string.gmatch(states, '%S+') do
        if state == get(id, 'state')[1] then
            step[action](id)
            return {'done'}
        end
    end
    return {'refused', show(id)}
end

return step[ARGV[1]](unpack(ARGV, 2))
