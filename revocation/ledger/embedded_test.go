package ledger_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/edge-revocation/caddy-token-revocation/revocation/ledger"
)

func TestAnEmptyEmbeddedLedgerIsInSyncAtOnce(t *testing.T) {
	begin := time.Now()
	l := open(t, ledger.Options{Embedded: &ledger.EmbeddedOptions{StoreDir: t.TempDir()}})
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	took := time.Since(begin)
	t.Logf("in sync after %s", took)
	if took > 2*time.Second {
		t.Errorf("in sync after %s", took)
	}
	publish(t, l, "a")
	eventually(t, "applied", func() bool { return s.has("a") })
	if st := l.Status(); !st.Standalone || !st.Usable || st.LedgerID == "" || !st.Embedded {
		t.Errorf("status %+v", st)
	}
}

func TestAnAcknowledgedRevocationSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	l := open(t, embedded(dir))
	for i := range 20 {
		publish(t, l, fmt.Sprint("id-", i))
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = open(t, embedded(dir))
	s := newSink()
	f := l.Follow(s, ledger.Observer{})
	defer f.Stop()
	eventually(t, "in sync", func() bool { return f.State().InSync })
	if s.count() != 20 {
		t.Errorf("%d of 20 after reopening", s.count())
	}
}

func TestAStoreDirectoryHasOneOwner(t *testing.T) {
	dir := t.TempDir()
	open(t, embedded(dir))
	_, err := ledger.Open(embedded(dir))
	if !errors.Is(err, ledger.ErrLocked) {
		t.Fatalf("opening the same store twice: %v", err)
	}
}
