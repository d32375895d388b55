package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/caddyserver/caddy/v2"

	"github.com/edge-revocation/caddy-token-revocation/revocation"
	"github.com/edge-revocation/caddy-token-revocation/revocation/intent"
	"github.com/edge-revocation/caddy-token-revocation/revocation/oauth"
)

// upstreamStates keeps what the upstream handlers of this process share over
// config reloads, as pool.go does with what else outlives a config: the intents,
// by their directory.
var upstreamStates = caddy.NewUsagePool()

// recheckInterval is how often a client's revocation of a token that nobody here
// understands may make the fleet introspect an issuer's tokens anew.
const recheckInterval = time.Second

// upstreamState holds the intents, and what is counted.
type upstreamState struct {
	dir      string
	rechecks oauth.Rechecks
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec

	stop    chan struct{}
	opening sync.WaitGroup

	mu      sync.Mutex
	journal *intent.Journal // nil until a config runs
	closed  bool
}

// intentsDir is where this edge's intents are kept.
func intentsDir() string { return filepath.Join(defaultDataDir(), "intents") }

func takeUpstreamState() (*upstreamState, error) {
	dir := intentsDir()
	value, _, err := upstreamStates.LoadOrNew(dir, func() (caddy.Destructor, error) {
		return newUpstreamState(dir), nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*upstreamState), nil
}

func releaseUpstreamState(s *upstreamState) error {
	_, err := upstreamStates.Delete(s.dir)
	return err
}

func newUpstreamState(dir string) *upstreamState {
	s := &upstreamState{
		dir:  dir,
		stop: make(chan struct{}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: metricsPrefix + "upstream_requests_total",
			Help: "Requests to authorization servers behind token_revocation upstream, by result.",
		}, []string{"result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    metricsPrefix + "upstream_seconds",
			Help:    "Time of requests to authorization servers behind token_revocation upstream: in total, for verifying the token, and for recording the revocation.",
			Buckets: []float64{1e-4, 5e-4, 1e-3, 2e-3, 5e-3, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}, []string{"part"}),
	}
	s.rechecks.Interval = recheckInterval
	s.rechecks.Timeout = oauth.DefaultTimeout
	s.rechecks.Do = recheckNow
	s.opening.Go(s.openWhenRunning)
	return s
}

// Destruct is called by the pool after the last config that used it is gone.
func (s *upstreamState) Destruct() error {
	close(s.stop)
	s.opening.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.journal == nil {
		return nil
	}
	return s.journal.Close()
}

// openWhenRunning opens the intents as soon as a config runs, so that those of a
// process that died are recorded without waiting for a request. It is not done
// while a config is only loaded: `caddy validate` must leave the disk alone.
func (s *upstreamState) openWhenRunning() {
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-ticker.C:
			if currentApp() != nil {
				_, _ = s.open() // who needs it is told
				return
			}
		}
	}
}

func (s *upstreamState) open() (*intent.Journal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return nil, fmt.Errorf("%w: Caddy is stopping", intent.ErrUnavailable)
	case s.journal != nil:
		return s.journal, nil
	}
	var err error
	s.journal, err = intent.Open(intent.Options{
		Dir:    s.dir,
		Record: s.recordLate,
		Active: func(ctx context.Context, iss, token string) (bool, error) {
			app := currentApp()
			if app == nil {
				return false, errNoConfig
			}
			return app.stillActive(ctx, iss, token)
		},
		Logger: processLogger("intents"),
	})
	return s.journal, err
}

var errNoConfig = errors.New("no config is running")

// Begin implements oauth.Intents.
func (s *upstreamState) Begin(ctx context.Context, i intent.Intent) (*intent.Entry, error) {
	j, err := s.open()
	if err != nil {
		return nil, err
	}
	return j.Begin(ctx, i)
}

// Resume implements oauth.Intents.
func (s *upstreamState) Resume(ctx context.Context, iss, client, token string) (*intent.Entry, error) {
	j, err := s.open()
	if err != nil {
		return nil, err
	}
	return j.Resume(ctx, iss, client, token)
}

// recordLate records an intent that its request could not: with whatever config
// runs at the time.
func (s *upstreamState) recordLate(ctx context.Context, i *intent.Intent) error {
	app := currentApp()
	if app == nil {
		return fmt.Errorf("%w: %w", revocation.ErrUnavailable, errNoConfig)
	}
	start := time.Now()
	done, err := intent.RecordAll(ctx, app.service, i, start, app.issuerSkew())
	for _, d := range done {
		if d.Receipt.Stood {
			continue
		}
		app.replica.announce("token_revoked", map[string]any{
			"id": d.Receipt.ID, "sequence": d.Receipt.Sequence,
			"criteria": d.Request.Criteria.String(), "mode": d.Request.Mode.String(),
			"client_id": i.Client, "issuer": i.Issuer, "owner": i.Client,
			"result": string(oauth.ResultRevoked), "reason": "recorded late", "duration": time.Since(i.Made).Seconds(),
		})
	}
	if err == nil && i.Recheck {
		err = s.rechecks.Recheck(ctx, i.Issuer)
	}
	return err
}

// recheckNow makes every edge ask again about the issuer's tokens.
func recheckNow(ctx context.Context, iss string) error {
	app := currentApp()
	if app == nil {
		return errNoConfig
	}
	_, err := app.service.Recheck(ctx, revocation.RecheckRequest{
		Issuer: iss, Reason: "a token was revoked at the authorization server that can't be resolved here",
		Actor: "token_revocation upstream",
	})
	return err
}

// register adds the collectors to a config's registry.
func (s *upstreamState) register(registry *prometheus.Registry) error {
	for _, c := range []prometheus.Collector{s.requests, s.seconds, s} {
		err := registry.Register(c)
		var already prometheus.AlreadyRegisteredError
		if err != nil && !errors.As(err, &already) {
			return err
		}
	}
	return nil
}

func (s *upstreamState) stats() (stats intent.Stats, opened bool) {
	s.mu.Lock()
	j := s.journal
	s.mu.Unlock()
	if j == nil {
		return intent.Stats{}, false
	}
	return j.Stats(), true
}

var (
	descIntents = prometheus.NewDesc(metricsPrefix+"upstream_intents",
		"Revocations on their way through an authorization server: forwarded to it, accepted by it and not recorded yet, or of unknown outcome.",
		[]string{"state"}, nil)
	descIntentsUsable  = gauge("upstream_intents_usable", "1 if intents can be kept on disk, as far as is known. If not, revocations are refused.")
	descIntentsOldest  = gauge("upstream_intents_accepted_oldest_seconds", "Age of the oldest revocation that was accepted and is not recorded yet.")
	descIntentsBroken  = gauge("upstream_intents_quarantined", "Intent files that were put aside because they can't be read or recorded.")
	descIntentsLate    = gauge("upstream_intents_recorded_late_total", "Revocations that were recorded after their request had ended.")
	descIntentsDropped = gauge("upstream_intents_unknown_dropped_total", "Intents that ended without anybody learning their outcome.")
	descIntentsRefused = gauge("upstream_intents_refused_total", "Requests refused because too many intents were open, or nothing could be written to the disk.")
)

// Describe implements prometheus.Collector.
func (s *upstreamState) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descIntents, descIntentsUsable, descIntentsOldest, descIntentsBroken, descIntentsLate, descIntentsDropped, descIntentsRefused,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s *upstreamState) Collect(ch chan<- prometheus.Metric) {
	stats, opened := s.stats()
	if !opened {
		return
	}
	set := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	set(descIntents, prometheus.GaugeValue, float64(stats.Forwarded), "forwarded")
	set(descIntents, prometheus.GaugeValue, float64(stats.Accepted), "accepted")
	set(descIntents, prometheus.GaugeValue, float64(stats.Unknown), "unknown")
	set(descIntentsUsable, prometheus.GaugeValue, number(stats.Usable))
	set(descIntentsOldest, prometheus.GaugeValue, stats.OldestAccepted.Seconds())
	set(descIntentsBroken, prometheus.GaugeValue, float64(stats.Quarantined))
	set(descIntentsLate, prometheus.CounterValue, float64(stats.Late))
	set(descIntentsDropped, prometheus.CounterValue, float64(stats.Ended+stats.Evicted))
	set(descIntentsRefused, prometheus.CounterValue, float64(stats.Refused))
}

// intentsStatus is part of the status. It holds nothing of any token.
type intentsStatus struct {
	// Usable: they can be kept on disk. If not, revocations are refused.
	Usable bool `json:"usable"`
	// Forwarded are at an authorization server just now; Accepted were accepted
	// by it and are not recorded yet; of Unknown, nobody learned the outcome.
	Forwarded int `json:"forwarded"`
	Accepted  int `json:"accepted"`
	Unknown   int `json:"unknown"`
	// OldestAcceptedSeconds is the age of the oldest of Accepted.
	OldestAcceptedSeconds float64 `json:"oldest_accepted_seconds,omitempty"`
	// Quarantined are files that can't be read or recorded.
	Quarantined int `json:"quarantined,omitempty"`
}

// upstreamIntents describes the intents of this process; nil if no config has
// token_revocation upstream.
func upstreamIntents() (status *intentsStatus) {
	upstreamStates.Range(func(_, value any) bool {
		if s, ok := value.(*upstreamState); ok {
			if stats, opened := s.stats(); opened {
				status = &intentsStatus{
					Usable: stats.Usable, Forwarded: stats.Forwarded, Accepted: stats.Accepted, Unknown: stats.Unknown,
					OldestAcceptedSeconds: stats.OldestAccepted.Seconds(), Quarantined: stats.Quarantined,
				}
			}
		}
		return true
	})
	return status
}

var _ oauth.Intents = (*upstreamState)(nil)
