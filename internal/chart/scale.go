package chart

import "math"

// tickGap is how far apart the ticks of a y axis are at least.
const tickGap = 30.0

// scale says where a value lies between two places of the picture.
type scale struct {
	log       bool
	low, high float64 // values
	from, to  float64 // their places
}

func (s scale) at(v float64) float64 {
	low, high := s.low, s.high
	if s.log {
		v, low, high = math.Log10(v), math.Log10(low), math.Log10(high)
	}
	// Without the conversion some processors fuse both steps, and pictures differ between machines.
	return s.from + float64((v-low)/(high-low)*(s.to-s.from))
}

// scaleY fits the edges between the top and the bottom of a plot, with some air.
func scaleY(log bool, edges [][]Point, top, bottom float64) scale {
	s := scale{log: log, from: bottom, to: top, low: math.Inf(1)}
	for _, edge := range edges {
		for _, one := range edge {
			s.low, s.high = min(s.low, one.Y), max(s.high, one.Y)
		}
	}
	switch {
	case s.high == 0: // nothing but zeros, or nothing at all
		s.low, s.high = 0.1, 1
	case log:
		s.low, s.high = s.low/1.3, s.high*1.3
	}
	if !log {
		s.low, s.high = 0, s.high*1.06
	}
	return s
}

// ticks are round values: as many as have room.
func (s scale) ticks() []float64 {
	if s.log {
		if all := s.logTicks(); len(all) > 1 {
			return all
		}
	}
	room := math.Floor(math.Abs(s.to-s.from) / tickGap)
	step := roundUp((s.high - s.low) / max(room, 1))
	var all []float64
	for i := math.Ceil(s.low / step); i*step <= s.high; i++ {
		all = append(all, i*step)
	}
	return all
}

// roundUp is the next 1, 2 or 5 of a power of ten.
func roundUp(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, one := range []float64{1, 2, 5} {
		if one*power >= v {
			return one * power
		}
	}
	return 10 * power
}

// logTicks are the powers of ten, with what lies between them where that has room.
func (s scale) logTicks() []float64 {
	var all []float64
	for _, between := range [][]float64{{1, 2, 5}, {1, 3}, {1}} {
		all = nil
		for power := math.Floor(math.Log10(s.low)); power <= math.Log10(s.high); power++ {
			for _, one := range between {
				if v := one * math.Pow(10, power); s.low <= v && v <= s.high {
					all = append(all, v)
				}
			}
		}
		if s.haveRoom(all) {
			break
		}
	}
	return all
}

func (s scale) haveRoom(ticks []float64) bool {
	for i := 1; i < len(ticks); i++ {
		if math.Abs(s.at(ticks[i])-s.at(ticks[i-1])) < tickGap {
			return false
		}
	}
	return true
}
