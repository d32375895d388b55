package caddymodule

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/edge-revocation/caddy-token-revocation/revocation/issuer"
)

// introspectionStatus says how asking an issuer about its tokens goes. The
// counters begin with the process, or with the newest change of the issuer or of
// its introspection block.
type introspectionStatus struct {
	// Endpoint is absent until it was discovered.
	Endpoint string `json:"endpoint,omitempty"`
	// Breaker is closed (everything is asked), open (nothing is, for a while) or
	// half_open (one question decides).
	Breaker string `json:"breaker"`
	// Failures is how many questions failed in a row.
	Failures int `json:"failures"`
	// LastError is why the newest failed question failed, though it may be long
	// ago.
	LastError string `json:"last_error,omitempty"`
	// Running counts questions under way, or waiting for their turn.
	Running int `json:"running"`
	// Answers and Bytes are kept.
	Answers int   `json:"answers"`
	Bytes   int64 `json:"bytes"`

	Asked    uint64 `json:"asked"` // questions sent
	Active   uint64 `json:"active"`
	Inactive uint64 `json:"inactive"`
	Failed   uint64 `json:"failed"`
	Hits     uint64 `json:"hits"`    // callers who got a kept answer
	Shared   uint64 `json:"shared"`  // callers who joined another's question
	Refused  uint64 `json:"refused"` // callers turned away: open breaker, or too many questions
	Purged   uint64 `json:"purged"`  // answers forgotten for a revocation
	Opened   uint64 `json:"opened"`  // times that the breaker has opened
}

// introspectionStatus returns the state of asking that issuer, nil if it is not
// asked.
func (a *App) introspectionStatus(of *issuer.Issuer) *introspectionStatus {
	n := a.introspector(of.Name())
	if n == nil {
		return nil
	}
	s := n.Status()
	return &introspectionStatus{
		Endpoint: s.Endpoint, Breaker: s.Breaker.String(), Failures: s.Failures, LastError: s.LastError,
		Running: s.Running, Answers: s.Answers, Bytes: s.Bytes,
		Asked: s.Asked, Active: s.Active, Inactive: s.Inactive, Failed: s.Failed, Hits: s.Hits,
		Shared: s.Shared, Refused: s.Refused, Purged: s.Purged, Opened: s.Opened,
	}
}

func introspectionDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(metricsPrefix+"introspection"+name, help, append([]string{"issuer"}, labels...), nil)
}

var (
	descQuestions     = introspectionDesc("_questions_total", "Questions sent to the authorization server, by outcome.", "outcome")
	descQuestionTime  = introspectionDesc("_seconds", "From sending a question until its answer was read, or it was given up.")
	descCallers       = introspectionDesc("_callers_total", "Callers who were not asked a question for: they got a kept answer, shared a question, or were refused.", "result")
	descPurged        = introspectionDesc("_purged_total", "Kept answers that were forgotten for a revocation.")
	descAnswers       = introspectionDesc("_answers", "Answers that are kept.")
	descAnswerBytes   = introspectionDesc("_answers_bytes", "Memory of the kept answers.")
	descRunning       = introspectionDesc("_running", "Questions under way, or waiting for their turn.")
	descBreaker       = introspectionDesc("_breaker_open", "1 if the authorization server is not asked, or one question at a time, because too many have failed.")
	descBreakerOpened = introspectionDesc("_breaker_opened_total", "Times that the breaker has opened.")
)

// introspectionCollector reads a config's introspectors when metrics are scraped.
// It counts nothing, so that it may be made anew for each config.
type introspectionCollector struct{ app *App }

// Describe implements prometheus.Collector.
func (c *introspectionCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descQuestions, descQuestionTime, descCallers, descPurged, descAnswers, descAnswerBytes, descRunning,
		descBreaker, descBreakerOpened,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *introspectionCollector) Collect(ch chan<- prometheus.Metric) {
	for _, n := range c.app.introspectors {
		s, name := n.Status(), n.Issuer().Name()
		set := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
			ch <- prometheus.MustNewConstMetric(d, kind, value, append([]string{name}, labels...)...)
		}
		set(descQuestions, prometheus.CounterValue, float64(s.Active), "active")
		set(descQuestions, prometheus.CounterValue, float64(s.Inactive), "inactive")
		set(descQuestions, prometheus.CounterValue, float64(s.Failed), "failed")
		set(descCallers, prometheus.CounterValue, float64(s.Hits), "kept")
		set(descCallers, prometheus.CounterValue, float64(s.Shared), "shared")
		set(descCallers, prometheus.CounterValue, float64(s.Refused), "refused")
		set(descPurged, prometheus.CounterValue, float64(s.Purged))
		set(descAnswers, prometheus.GaugeValue, float64(s.Answers))
		set(descAnswerBytes, prometheus.GaugeValue, float64(s.Bytes))
		set(descRunning, prometheus.GaugeValue, float64(s.Running))
		set(descBreaker, prometheus.GaugeValue, number(s.Breaker != issuer.BreakerClosed))
		set(descBreakerOpened, prometheus.CounterValue, float64(s.Opened))
		buckets := make(map[float64]uint64, len(s.Durations.Buckets))
		for bound, count := range s.Durations.Buckets {
			buckets[bound.Seconds()] = count
		}
		ch <- prometheus.MustNewConstHistogram(descQuestionTime, s.Durations.Count, s.Durations.Sum.Seconds(), buckets, name)
	}
}

func registerIntrospectionMetrics(a *App) error {
	registry := a.ctx.GetMetricsRegistry()
	if registry == nil || len(a.introspectors) == 0 {
		return nil
	}
	err := registry.Register(&introspectionCollector{a})
	if already := (prometheus.AlreadyRegisteredError{}); errors.As(err, &already) {
		return nil
	}
	return err
}
