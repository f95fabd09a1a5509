package main

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"muster/actors"
)

func registerProcess(r prometheus.Registerer) {
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// registerCore shows the counters of the core.
func registerCore(r prometheus.Registerer, stats *actors.Stats) {
	counter := func(name, help string, n *atomic.Uint64) {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "muster_core_" + name, Help: help},
			func() float64 { return float64(n.Load()) }))
	}
	gauge := func(name, help string, n *atomic.Int64) {
		r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "muster_core_" + name, Help: help},
			func() float64 { return float64(n.Load()) }))
	}
	counter("messages_in_total", "Messages from edges.", &stats.Up)
	counter("messages_out_total", "Messages to edges.", &stats.Down)
	counter("messages_malformed_total", "Messages from edges that said nothing or came to the wrong shard.", &stats.Malformed)
	counter("messages_stale_total", "Messages of a link epoch that is over.", &stats.Stale)
	counter("activations_total", "User and room actors activated.", &stats.Spawned)
	counter("passivations_total", "User and room actors passivated.", &stats.Passivated)
	counter("panics_total", "Panics of activations and gateways.", &stats.Panics)
	counter("parked_total", "Activations parked after their third panic in a minute.", &stats.Parked)
	counter("reopened_total", "Shards reopened after a panic of their gateway.", &stats.Reopened)
	counter("late_ticks_total", "Deadlines that waited for a full inbox.", &stats.LateTicks)
	counter("unreachable_total", "Leases of edges that lapsed.", &stats.Unreachable)
	gauge("users_resident", "Resident user actors.", &stats.Users)
	gauge("rooms_resident", "Resident room actors.", &stats.Rooms)
}
