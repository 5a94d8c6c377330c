package federation

var roomRoutes = []Route{}
