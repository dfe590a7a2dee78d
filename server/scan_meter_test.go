package server

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/secret-sidecar/secret-sidecar/internal/unixsocket"
)

func TestAUserMakesNoMoreGuessesThanItsBytesAllow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter, began := newScanMeter(), time.Now()
		const piece, lasts = 1 << 20, time.Minute
		scanned := 0
		for pid := int32(1); time.Since(began) < lasts; pid++ { // a new process for each scan
			use, refused := meter.enter(unixsocket.Peer{UID: 1000, PID: pid})
			if refused != nil {
				time.Sleep(refused.retryAfter)
				continue
			}
			for range 8 {
				if err := use.wait(t.Context(), piece); err != nil {
					t.Fatal(err)
				}
				scanned += piece
			}
			meter.leave(use)
		}
		took := int(time.Since(began) / time.Second)
		if most := scanBytesBurst + scanBytes*(took+1); scanned > most {
			t.Errorf("%d bytes in %d s, want %d at most", scanned, took, most)
		}
	})
}

func TestAUsersScansAreBoundedWhateverItsProcesses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		meter := newScanMeter()
		enter := func(uid uint32, pid int32) (*scanUse, *problem) {
			return meter.enter(unixsocket.Peer{UID: uid, PID: pid})
		}
		first, refused := enter(1000, 1)
		if refused != nil {
			t.Fatal(refused)
		}
		if _, refused = enter(1000, 2); refused != nil {
			t.Fatal(refused)
		}
		if _, refused = enter(1000, 3); refused == nil || refused.reason != reasonRateLimited {
			t.Errorf("a third scan: %v", refused)
		}
		if _, refused = enter(1001, 4); refused != nil {
			t.Errorf("another user's: %v", refused)
		}
		meter.leave(first)
		begun := 0
		for range 100 {
			use, refused := enter(1000, 5)
			if refused == nil {
				begun++
				meter.leave(use)
			}
		}
		if begun >= scanBurst {
			t.Errorf("%d more scans at once", begun)
		}
		time.Sleep(2 * scanEvery)
		if _, refused = enter(1000, 6); refused != nil {
			t.Errorf("after a pause: %v", refused)
		}
	})
}
