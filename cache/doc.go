// Package cache is a read-through cache with a time to live, a bound in bytes and copies for
// outages. It knows nothing of what it holds or of where values come from: a caller names a key and
// hands over the function that loads it.
//
// What it promises:
//
//   - One load. Any number of concurrent Gets of a key cause one load. Callers whose MaxAge a
//     running load cannot satisfy share another one, which begins at once: the first may hang. A
//     key never has more than two loads running and one queued. The queued one begins when one of
//     the two ends.
//   - Fresh. A value older than min(TTL, MaxAge) when its Get began is never returned as SourceLoad
//     or SourceCache; with a MaxAge of zero the load began after the Get. Age is the larger of what
//     the wall clock and the monotonic clock say. What a load brings never replaces what one that
//     began later has brought.
//   - Fenced. A Get that begins after Drop, DropMatching or DropSpace has returned is never
//     answered from a load that began before the call, whatever was in flight. Nor does it wait for
//     one: the loads that a drop has found running do not count among the two of their key.
//   - Stale only in an outage, and only as old as both the policy and the caller allow.
//   - No copy answers, fresh or stale, once its value has ended by itself (Config.ExpiresAt).
//   - Absence is remembered, a denial drops the copy, an overload is refused at once.
//   - Values in use are refreshed ahead of expiry, and expiries are spread by up to a tenth.
//
// How it works. Three things hold state:
//
//   - The index (space.go) knows every entry and every running load, under Cache.mu. It is the
//     truth: an entry that is not in it is marked dropped, and a dropped entry answers nobody.
//   - The store (store.go) keeps the same entries in ristretto, which decides what stays when
//     memory is short and tells the index what left. A hit needs the store alone and never waits
//     for Cache.mu.
//   - A flight (flight.go) is one load. A drop fences it: it is taken out of the index before the
//     drop returns, so later Gets start their own, and its result is handed to those who already
//     wait but kept nowhere. A queued flight has not begun: it begins during the drop, and later
//     Gets may share it.
//   - The flights of a key (flights.go) are at most two that run and one that is queued. When the
//     later one ends first, its result answers those who wait for the earlier one too, and what
//     that brings is kept nowhere.
//   - The clock (clock.go) reads the wall clock and the monotonic one. Whatever goes by age asks
//     it.
package cache
