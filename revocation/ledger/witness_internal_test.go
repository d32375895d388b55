package ledger

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
)

func TestAWitnessLastsAsLongAsItsMessage(t *testing.T) {
	stored := time.Now()
	before := revocation.Position{Sequence: 7, Stored: stored, Witness: 3}
	for ttl, c := range map[string]struct {
		witness uint64
		ends    time.Time
	}{
		"":                     {7, time.Time{}},
		"never":                {7, time.Time{}},
		"90":                   {7, stored.Add(90 * time.Second)},
		"1h1.5s":               {7, stored.Add(time.Hour + time.Second)},
		"9223372036":           {3, time.Time{}}, // vanishes at once
		"99999999999999999999": {7, time.Time{}}, // is no number, the server refuses it
	} {
		h := nats.Header{}
		if ttl != "" {
			h.Set("Nats-TTL", ttl)
		}
		if p := bearWitness(before, h); p.Witness != c.witness || !p.WitnessEnds.Equal(c.ends) {
			t.Errorf("%q: %+v", ttl, p)
		}
	}
}
