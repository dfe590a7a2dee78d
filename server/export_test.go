package server

import "time"

// SetWatchEvery changes how often watched secrets are read. Call it before the first Watch.
func (s *Server) SetWatchEvery(every time.Duration) { s.watches.every = every }
