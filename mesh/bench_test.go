package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"

	"github.com/infrafabric/agentmesh/keys"
)

// The benchmarks compare signed messages of 256 bytes of payload with a raw
// pion data channel in its default settings, both over loopback in one run,
// and report the ratio. Absolute figures depend on the machine, the ratio
// should not.

const benchPayload = 256

// rawPair connects two PeerConnections with pion's defaults over loopback.
func rawPair(b *testing.B) (send *webrtc.DataChannel, recv *webrtc.DataChannel) {
	b.Helper()
	net, err := LoopbackNet()
	if err != nil {
		b.Fatal(err)
	}
	var se webrtc.SettingEngine
	se.SetNet(net)
	se.SetIncludeLoopbackCandidate(true)
	api := webrtc.NewAPI(webrtc.WithSettingEngine(se))
	pcA, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		b.Fatal(err)
	}
	pcB, err := api.NewPeerConnection(webrtc.Configuration{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { pcA.GracefulClose(); pcB.GracefulClose() })
	send, err = pcA.CreateDataChannel("raw", nil)
	if err != nil {
		b.Fatal(err)
	}
	opened := make(chan struct{})
	send.OnOpen(func() { close(opened) })
	got := make(chan *webrtc.DataChannel, 1)
	pcB.OnDataChannel(func(d *webrtc.DataChannel) { got <- d })
	exchange(b, pcA, pcB)
	<-opened
	return send, <-got
}

func exchange(b *testing.B, pcA, pcB *webrtc.PeerConnection) {
	b.Helper()
	offer, err := pcA.CreateOffer(nil)
	if err != nil {
		b.Fatal(err)
	}
	done := webrtc.GatheringCompletePromise(pcA)
	if err := pcA.SetLocalDescription(offer); err != nil {
		b.Fatal(err)
	}
	<-done
	if err := pcB.SetRemoteDescription(*pcA.LocalDescription()); err != nil {
		b.Fatal(err)
	}
	answer, err := pcB.CreateAnswer(nil)
	if err != nil {
		b.Fatal(err)
	}
	done = webrtc.GatheringCompletePromise(pcB)
	if err := pcB.SetLocalDescription(answer); err != nil {
		b.Fatal(err)
	}
	<-done
	if err := pcA.SetRemoteDescription(*pcB.LocalDescription()); err != nil {
		b.Fatal(err)
	}
}

// meshPair connects two Nodes over loopback.
func meshPair(b testing.TB) (p, q *Peer) {
	b.Helper()
	net, err := LoopbackNet()
	if err != nil {
		b.Fatal(err)
	}
	h := newHub(0)
	idA, idB := newIdentity(b, "agent-a"), newIdentity(b, "agent-b")
	trust := newBook(idA, idB)
	nodeA := startNode(b, h, nil, Config{Identity: idA, Trust: trust, Net: net})
	nodeB := startNode(b, h, nil, Config{Identity: idB, Trust: trust, Net: net})
	b.Cleanup(func() { nodeA.Close(); nodeB.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if p, err = nodeA.Dial(ctx, "agent-b"); err != nil {
		b.Fatal(err)
	}
	if q, err = nodeB.Accept(ctx); err != nil {
		b.Fatal(err)
	}
	return p, q
}

func benchJSON() json.RawMessage {
	return json.RawMessage(`{"text":"` + strings.Repeat("x", benchPayload-11) + `"}`)
}

// rawRate sends n messages and returns how long they took to arrive.
func rawRate(b *testing.B, n int) time.Duration {
	send, recv := rawPair(b)
	const high, low = 1 << 20, 512 << 10
	room := make(chan struct{}, 1)
	send.SetBufferedAmountLowThreshold(low)
	send.OnBufferedAmountLow(func() {
		select {
		case room <- struct{}{}:
		default:
		}
	})
	all := make(chan struct{})
	count := 0
	recv.OnMessage(func(webrtc.DataChannelMessage) {
		if count++; count == n {
			close(all)
		}
	})
	msg := make([]byte, benchPayload)
	start := time.Now()
	for range n {
		for send.BufferedAmount() > high {
			<-room
		}
		if err := send.Send(msg); err != nil {
			b.Fatal(err)
		}
	}
	<-all
	return time.Since(start)
}

func meshRate(b *testing.B, n int) time.Duration {
	p, q := meshPair(b)
	ctx := context.Background()
	msg := Message{Payload: benchJSON()}
	start := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() {
		for range n {
			if err := p.Send(ctx, msg); err != nil {
				b.Error(err)
				return
			}
		}
	})
	for i := range n {
		m, err := q.Receive(ctx)
		if err != nil || m.SequenceNum != uint64(i+1) {
			b.Fatal(m.SequenceNum, err)
		}
	}
	took := time.Since(start)
	wg.Wait()
	return took
}

// BenchmarkThroughput reports signed messages per second, those of a raw
// default channel, and the ratio of their medians. The raw channel has good and
// bad runs (it overruns the socket's default buffer and stalls), so give it
// several; best-ratio compares the best run of each.
func BenchmarkThroughput(b *testing.B) {
	var raw, signed []float64
	const n = 100_000
	for b.Loop() {
		raw = append(raw, n/rawRate(b, n).Seconds())
		signed = append(signed, n/meshRate(b, n).Seconds())
	}
	r, s := median(raw), median(signed)
	b.ReportMetric(r, "raw-msg/s")
	b.ReportMetric(s, "signed-msg/s")
	b.ReportMetric(s/r, "ratio")
	b.ReportMetric(slices.Max(signed)/slices.Max(raw), "best-ratio")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRoundTrip reports the median round trip of a signed message beside
// a raw channel's and the bound: raw + 1.3 × 2 × (sign + verify).
func BenchmarkRoundTrip(b *testing.B) {
	const n = 3000
	var raw, signed, crypto []float64
	for b.Loop() {
		raw = append(raw, rawTrip(b, n))
		signed = append(signed, meshTrip(b, n))
		crypto = append(crypto, signVerify(b))
	}
	r, s, c := median(raw), median(signed), median(crypto)
	bound := r + 1.3*2*c
	b.ReportMetric(r, "raw-µs")
	b.ReportMetric(s, "signed-µs")
	b.ReportMetric(c, "sign+verify-µs")
	b.ReportMetric(bound, "bound-µs")
	b.ReportMetric(s/bound, "of-bound")
	b.ReportMetric(0, "ns/op")
}

func rawTrip(b *testing.B, n int) float64 {
	send, recv := rawPair(b)
	recv.OnMessage(func(m webrtc.DataChannelMessage) { _ = recv.Send(m.Data) })
	back := make(chan struct{}, 1)
	send.OnMessage(func(webrtc.DataChannelMessage) { back <- struct{}{} })
	msg := make([]byte, benchPayload)
	trips := make([]float64, n)
	for i := range trips {
		start := time.Now()
		if err := send.Send(msg); err != nil {
			b.Fatal(err)
		}
		<-back
		trips[i] = micros(time.Since(start))
	}
	return median(trips)
}

func meshTrip(b *testing.B, n int) float64 {
	p, q := meshPair(b)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			m, err := q.Receive(ctx)
			if err != nil {
				return
			}
			if err := q.Send(ctx, Message{Payload: m.Payload}); err != nil {
				return
			}
		}
	})
	msg := Message{Payload: benchJSON()}
	trips := make([]float64, n)
	for i := range trips {
		start := time.Now()
		if err := p.Send(ctx, msg); err != nil {
			b.Fatal(err)
		}
		if _, err := p.Receive(ctx); err != nil {
			b.Fatal(err)
		}
		trips[i] = micros(time.Since(start))
	}
	cancel()
	wg.Wait()
	return median(trips)
}

// signVerify is the median time of one batch signature and its verification.
func signVerify(b *testing.B) float64 {
	id := newIdentity(b, "agent-a")
	trips := make([]float64, 500)
	for i := range trips {
		st := keys.Statement{Domain: batchDomain, Mesh: "default", From: "agent-a", Body: []byte(fmt.Sprint("statement ", i))}
		start := time.Now()
		sig, err := id.Sign(st)
		if err != nil {
			b.Fatal(err)
		}
		if err := id.PublicKey().Verify(st, sig); err != nil {
			b.Fatal(err)
		}
		trips[i] = micros(time.Since(start))
	}
	return median(trips)
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
