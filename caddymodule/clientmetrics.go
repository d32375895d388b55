package caddymodule

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	descClients     = gauge("clients", "Clients of the revocation endpoint that the configuration and its files list.")
	descClientFiles = gauge("clients_files_broken", "Clients files whose newest version is refused, so that the last good one is in use.")
)

// clientCollector reads a config's clients when metrics are scraped. It counts
// nothing, so that it may be made anew for each config.
type clientCollector struct{ app *App }

// Describe implements prometheus.Collector.
func (c *clientCollector) Describe(ch chan<- *prometheus.Desc) {
	ch <- descClients
	ch <- descClientFiles
}

// Collect implements prometheus.Collector.
func (c *clientCollector) Collect(ch chan<- prometheus.Metric) {
	broken := 0
	for _, s := range c.app.clientFiles() {
		if s.Error != "" {
			broken++
		}
	}
	ch <- prometheus.MustNewConstMetric(descClients, prometheus.GaugeValue, float64(c.app.registry.listed.Load().Len()))
	ch <- prometheus.MustNewConstMetric(descClientFiles, prometheus.GaugeValue, float64(broken))
}

func registerClientMetrics(a *App) error {
	registry := a.ctx.GetMetricsRegistry()
	if registry == nil {
		return nil
	}
	err := registry.Register(&clientCollector{a})
	if already := (prometheus.AlreadyRegisteredError{}); errors.As(err, &already) {
		return nil
	}
	return err
}
