"""Sessions over the network: a server, a page, clients, bridges.

frames over WebSocket or HTTP -> decoder process -> HostedSession -> model thread -> answers as they are made
Everything a session holds is on disk every few seconds; what a client may lose is told to it by frame id.
"""
