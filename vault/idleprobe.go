package vault

import (
	"context"
	"net/http"
	"time"
)

const (
	doingProbe = "see whether Vault is well again"
	// idleProbePause is how long after the last sign of an outage the client asks by itself. While somebody asks for
	// secrets, there are signs more often, and their reads are the probes: those say more.
	idleProbePause = 2 * maxProbePause
)

// idleProbeAt returns when to ask Vault whether it is well again, because nobody else does; the zero time is never.
func (k *keeper) idleProbeAt() time.Time {
	troubled := k.c.gate.troubled()
	if troubled.IsZero() {
		return time.Time{}
	}
	if k.probed.After(troubled) {
		troubled = k.probed
	}
	return troubled.Add(idleProbePause)
}

// probeIdle asks Vault whether it is well again, when that is due. The answer opens the gates, so that the state shows
// the end of an outage in which nobody asks for secrets.
func (k *keeper) probeIdle(ctx context.Context) {
	at, now := k.idleProbeAt(), time.Now()
	if at.IsZero() || at.After(now) {
		return
	}
	k.probed = now
	ctx, cancel := k.c.operation(ctx)
	defer cancel()
	_, err := k.c.api.call(ctx, request{doing: doingProbe, kind: CallProbe, method: http.MethodGet, path: "sys/health", rootLevel: true,
		query: "standbyok=true&perfstandbyok=true"})
	if err != nil {
		k.log.Debug("Vault is not well yet", debugAttrs(err)...)
		return
	}
	k.c.gate.paths.wellAgain()
	k.c.status.wake()
}
