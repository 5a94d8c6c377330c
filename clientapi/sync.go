package clientapi

var syncRoutes = []Route{}
