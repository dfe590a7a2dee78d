// Package fleet tells the other sidecars what to drop from their caches, and hears what they tell.
//
// The engine is a Redis stream. An entry says what to drop and who says so; it holds no secret.
// Everybody who can write to the stream can make sidecars read Vault again, and nothing worse.
//
// What it promises to a sidecar that follows the stream:
//
//   - Nothing is missed in silence. The sidecar goes on from the last entry that it has dropped. If
//     that entry is gone, or another server answers than before, entries may be missing: then it
//     drops everything (reader.go).
//   - A sidecar says which entry it has dropped last, in a key that expires. So others can count who
//     lives and who has dropped (presence.go).
//   - Equal entries that wait to be sent become one, and their number is limited (publisher.go).
package fleet
