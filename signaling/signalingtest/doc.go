// Package signalingtest checks implementations of [signaling.Broker]: every
// broker passes [TestBroker].
package signalingtest
